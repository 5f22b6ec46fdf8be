"""`finetune explain` says what a plug-in's own docstrings say."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.cli.explain import explained
from finetune.core.options import described
from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS, paragraphs

ROOT = Path(__file__).parents[2]
EVERY = [(registry, name) for registry in (STRATEGIES, MITIGATIONS, TASKS) for name in registry.all()]


def one_line(text):
    return " ".join(text.split())


def test_it_shows_what_it_does_its_paper_its_options_and_when_not_to_use_it(finetune):
    done = finetune("explain", "reinit")
    assert done.returncode == 0 and done.stderr == "" and "\x1b" not in done.stdout
    said = one_line(done.stdout)
    assert said.startswith(
        "mitigation reinit in a recipe: mitigations: [{type: reinit}] Re-initialises the last blocks"
    )
    assert "Source: Zhang et al. 2021" in said and "Not for: " in said
    assert "layers: whole number ≥ 1; default `2` The last so many blocks" in said
    assert "type:" not in said.partition(" options ")[2]


@pytest.mark.parametrize("registry, name", EVERY, ids=lambda value: getattr(value, "kind", value))
def test_every_word_of_the_docstrings_is_there_in_every_width(monkeypatch, registry, name):
    plugin = registry.get(name)
    schema = plugin.Options.model_json_schema()
    options = list(described(schema, schema.get("$defs", {})))
    for width in (40, 60, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = "\n".join(explained(registry, name)).splitlines()
        assert [line for line in lines if len(line) > width and len(line.split()) > 1] == []
        said = one_line(" ".join(lines))
        assert all(text in said for text in paragraphs(plugin))
        for option in options:
            assert option.key == "type" or (f"{option.key}: {option.value}" in said and option.meaning in said)


def test_options_inside_options_are_explained_too():
    said = one_line(" ".join(explained(STRATEGIES, "adaptive")))
    assert "groups: list of section" in said and "groups.factor: number > 0; required" in said
    assert "of: section; default `{type: adapter}`" in one_line(" ".join(explained(STRATEGIES, "preference")))


def test_an_unknown_name_is_bad_input_with_a_suggestion(finetune):
    done = finetune("explain", "lienar")
    assert done.returncode == 2 and done.stdout == ""
    assert "there is no strategy, mitigation or task called 'lienar'" in done.stderr
    assert "did you mean 'linear'?" in done.stderr


def test_a_name_in_two_kinds_is_explained_twice_the_strategy_first(finetune, monkeypatch, capsys):
    from finetune.cli import main

    STRATEGIES.all(), MITIGATIONS.all()
    monkeypatch.setitem(MITIGATIONS._found, "full", MITIGATIONS.get("reinit"))
    assert main(["explain", "full"]) == 0
    said = capsys.readouterr().out
    assert "\n\nstrategy full\n" in said and "\n\nmitigation full\n" in said


def test_it_is_quick_and_needs_no_torch(folder):
    code = """
import sys
from finetune.cli import main
main(["explain", "full"])
sys.exit(bool({"torch", "transformers", "peft"} & set(sys.modules)))
"""

    def seconds(code):
        """Of the processor: how busy the machine is does not count."""
        env, before = {**os.environ, "PYTHONPATH": str(ROOT)}, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, stdout=subprocess.PIPE).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    least = min(seconds("import numpy, pydantic.json_schema, yaml") for _ in range(3))
    assert min(seconds(code) for _ in range(3)) < 4.5 * least
