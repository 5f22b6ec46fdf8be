"""`finetune list` shows the plug-ins of other packages with their package, and names those that cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLUGINS = '''
from typing import ClassVar, Literal
from finetune.core.options import Options
from finetune.mitigations.base import Mitigation


class RestOptions(Options):
    """Nothing to choose."""

    type: Literal["a-night-of-undisturbed-rest"]


class Rest(Mitigation):
    """Does nothing at all."""

    name: ClassVar[str] = "a-night-of-undisturbed-rest"
    Options = RestOptions


class Soup(Rest):
    """Is called like one of ours."""

    name: ClassVar[str] = "soup"
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with one good mitigation, one called like ours, and a task whose import fails, as pip leaves it."""
    place = tmp_path / "site"
    about = place / "restful-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: restful\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(
        "[finetune.mitigations]\na-night-of-undisturbed-rest = restful:Rest\nsoup = restful:Soup\n"
        "[finetune.tasks]\nbroken = restful_broken:Task\n"
    )
    (place / "restful.py").write_text(PLUGINS)
    (place / "restful_broken.py").write_text("import a_module_that_nobody_has\n")
    return {"PYTHONPATH": f"{ROOT}:{place}"}


def test_others_plugins_are_listed_with_their_package(finetune, installed):
    done = finetune("list", "--json", **installed)
    assert done.returncode == 0, done.stderr
    plugins = json.loads(done.stdout)
    found = {entry["name"]: entry for entry in plugins["mitigations"]}
    assert found["a-night-of-undisturbed-rest"]["package"] == "restful 1.2"
    assert found["a-night-of-undisturbed-rest"]["file"].endswith("restful.py")
    assert found["soup"]["package"] is None and found["soup"]["file"].endswith("finetune/mitigations/soup.py")
    left_out = {entry["name"]: entry for entry in plugins["left_out"]}
    assert set(left_out) == {"soup", "broken"} and {each["package"] for each in left_out.values()} == {"restful 1.2"}
    assert left_out["broken"]["kind"] == "task"
    assert left_out["broken"]["error"] == "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"
    assert "two mitigation plug-ins are called 'soup'" in left_out["soup"]["error"]
    assert {entry["name"] for entry in plugins["tasks"]} >= {"chat", "classification"}, "the others are still there"


def test_a_long_name_does_not_run_into_its_text(finetune, installed):
    lines = finetune("list", COLUMNS="60", **installed).stdout.splitlines()
    place = lines.index("  a-night-of-undisturbed-rest")
    assert lines[place + 1] == " " * 18 + "Does nothing at all."
    assert lines[place + 2].endswith("restful.py, of restful 1.2")
    assert "  layerwise-decay " in "\n".join(lines), "which is as long as there is room beside a text"
    assert lines[lines.index("left out") + 1] == "  broken          task of restful 1.2: ModuleNotFoundError:"


def test_a_recipe_that_asks_for_one_that_is_left_out_is_told_why(finetune, folder, installed):
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("classification", "broken"))
    done = finetune("check", "--recipe-only", "recipe.yaml", **installed)
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "the task 'broken' of restful 1.2 cannot be used: ModuleNotFoundError: No module" in said
    assert "update restful, or take it out" in said


def test_a_recipe_can_ask_for_what_others_have_brought(finetune, folder, installed):
    with open(folder / "recipe.yaml", "a") as file:
        file.write("mitigations: [{type: a-night-of-undisturbed-rest}]\n")
    done = finetune("check", "--recipe-only", "recipe.yaml", **installed)
    assert done.returncode == 0, done.stderr
    assert "a-night-of-undisturbed-rest" in json.dumps(json.loads(finetune("schema", **installed).stdout))


def test_listing_others_plugins_loads_no_torch(finetune, folder, installed):
    code = textwrap.dedent("""
        import sys
        from finetune.cli import main
        main(["list"])
        heavy = {"torch", "transformers", "datasets", "accelerate", "peft"} & set(sys.modules)
        sys.exit(f"loaded {heavy}" if heavy else 0)
    """)
    env = {**os.environ, **installed}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
