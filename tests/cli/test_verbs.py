from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import finetune as package
from finetune.cli import VERBS

ROOT = Path(__file__).parents[2]


def test_help_is_quick(finetune):
    def seconds() -> float:
        start = time.perf_counter()
        assert finetune("--help").returncode == 0
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5


def test_help_and_version(finetune):
    said = finetune("--help").stdout
    assert all(verb in said for verb in VERBS)
    assert finetune("--version").stdout.strip() == f"finetune {package.__version__}"
    for verb in VERBS:
        assert finetune(verb, "--help").returncode == 0


@pytest.mark.parametrize("args", [[], ["rnu"], ["run"], ["list", "x"], ["check", "recipe.yaml", "--wrong"], ["--js"]])
def test_a_misunderstood_command_shows_help_and_exits_2(finetune, args):
    done = finetune(*args)
    assert done.returncode == 2
    assert "usage: finetune" in done.stderr
    assert done.stdout == ""


def test_check_shows_runs_values_and_origins(finetune):
    done = finetune("check", "--recipe-only", "recipe.yaml", "train.epochs=1")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "recipe: 2 variants x 2 seeds = 4 runs"
    assert "model.source: org/name # recipe.yaml:2" in lines
    assert "train.epochs: 1.0 # command line" in lines
    assert "train.batch_size: 16 # default" in lines
    own = lines[lines.index("variant linear") :]
    assert "strategy.type: linear # recipe.yaml:10" in own
    assert not any(line.startswith("model.source") for line in own)


@pytest.mark.parametrize("width", [50, 80])
def test_check_fits_the_terminal(finetune, folder, width):
    done = finetune("check", "--recipe-only", "recipe.yaml", COLUMNS=str(width))
    long = [line for line in done.stdout.splitlines() if len(line) > width and str(folder) not in line]
    assert long == []


def test_overrides_may_follow_options(finetune):
    done = finetune("check", "recipe.yaml", "--recipe-only", "train.epochs=1", "train.clip=2")
    assert "train.clip: 2.0" in done.stdout
    assert "train.epochs: 1.0" in done.stdout


@pytest.mark.parametrize("verb", ["check", "run"])
def test_bad_input_tells_everything_exits_2_and_starts_nothing(finetune, folder, verb):
    done = finetune(verb, "recipe.yaml", "train.epoch=3", "strategy.type=adaptr")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "command line: train.epoch: there is no key 'epoch' in train" in done.stderr
    assert "did you mean 'adapter'?" in done.stderr
    assert "problems; nothing was started" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr  # no colours in a pipe
    assert os.listdir(folder) == ["recipe.yaml"]


def test_a_missing_recipe_is_one_problem(finetune):
    done = finetune("check", "recipee.yaml")
    assert done.returncode == 2
    assert "there is no file recipee.yaml" in done.stderr
    assert "did you mean 'recipe.yaml'?" in done.stderr
    assert "1 problem; nothing was started" in done.stderr


def test_schema_is_json(finetune):
    schema = json.loads(finetune("schema").stdout)
    assert "adapter" in json.dumps(schema)


def test_list_shows_plugins_with_existing_files(finetune):
    plugins = json.loads(finetune("list", "--json").stdout)
    assert plugins.pop("left_out") == [] and set(plugins) == {"strategies", "tasks", "mitigations", "metrics"}
    names = {entry["name"] for entry in plugins["strategies"]}
    assert {"full", "partial", "adapter", "linear"} <= names
    for entries in plugins.values():
        assert all(Path(entry["file"]).is_file() and entry["summary"] for entry in entries)
    said = finetune("list").stdout
    assert all(name in said for name in names)


def test_files_are_shown_relative_to_the_current_folder():
    done = subprocess.run(
        [sys.executable, "-m", "finetune", "list", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["tasks"][0]["file"] == "finetune/tasks/chat.py"


LIGHT = [["list"], ["schema"], ["check", "--recipe-only", "recipe.yaml"], ["report", "nothing"], ["check", "gone.yaml"]]


@pytest.mark.parametrize("args", LIGHT)
def test_what_needs_no_torch_does_not_load_it(folder, args):
    code = f"""
import sys
from finetune.cli import main
main({args!r})
heavy = {{"torch", "transformers", "datasets", "accelerate", "peft"}} & set(sys.modules)
sys.exit(f"loaded {{heavy}}" if heavy else 0)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_is_no_traceback(folder):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"'{sys.executable}' -m finetune schema | head -c 1"
    done = subprocess.run(command, shell=True, cwd=folder, env=env, capture_output=True, text=True)
    assert done.stdout == "{"
    assert done.stderr == ""


def test_output_without_unicode_does_not_crash(finetune, folder):
    (folder / "recipe.yaml").write_text((folder / "recipe.yaml").read_text().replace("news.csv", "ünï×.csv"))
    done = finetune("check", "--recipe-only", "recipe.yaml", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
