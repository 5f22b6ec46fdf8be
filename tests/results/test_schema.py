"""The machine interface: what is written is read back, every documented key exists, and what needs words has them."""

import ast
import inspect
import json
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from finetune.report import build
from finetune.results import schema
from finetune.results.reference import json_schema, markdown
from finetune.results.schema import across, estimates, from_json, runs
from tests.results.stores import TASKS, answer, believe, keep

DOCUMENTED = {
    "": ["format", "study", "digest", "environment", "tasks", "variants", "comparisons"],
    "tasks[].": ["name", "split", "metric", "higher_is_better", "examples"],
    "variants[].": ["name", "strategy", "parameters", "runs", "estimates", "failures", "stability"],
    "variants[].parameters.": ["total", "trainable"],
    "variants[].runs[].": ["seed", "status", "reason", "seconds", "peak_memory_bytes", "scores"],
    "variants[].estimates{}.": [
        *("n", "mean", "sd", "sd_floor", "sd_corrected", "median", "min", "max", "ci", "ci_seeds", "prediction"),
        *("expected", "level", "method"),
    ],
    "variants[].failures.": ["count", "n", "rate", "ci", "limit"],
    "baselines[].": ["name", "estimates"],
    "comparisons[].": [
        *("task", "metric", "left", "right", "pairs", "difference", "ci", "p_value", "p_value_adjusted", "could_see"),
        *("probability_of_improvement", "verdict", "method"),
    ],
}
"""Every key of `results.json` that the design documents: `[]` enters a list, `{}` what stands under names."""

PATHS = [before + key for before, keys in DOCUMENTED.items() for key in keys]

VALUES = {
    "variants[].stability": {"stable", "unstable", "undecided"},
    "comparisons[].verdict": {"better", "worse", "undecided"},
}
"""The words that a key may have, where the design lists them."""


def at(path):
    """The part of the JSON schema under a documented key; None where there is no such key."""
    here = root = json_schema()
    for step in path.replace("[]", ".[]").replace("{}", ".{}").split("."):
        here = resolved(here, root)
        inside = {**here.get("properties", {}), "[]": here.get("items"), "{}": here.get("additionalProperties")}
        here = inside.get(step)
        if here is None:
            return None
    return here


def resolved(part, root):
    """What a reference stands for, and what a key that may be null is otherwise."""
    if "anyOf" in part:
        part = next(each for each in part["anyOf"] if each.get("type") != "null")
    return root["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part


KINDS = {
    kind.__name__: kind
    for module in (schema, across, estimates, runs)
    for kind in vars(module).values()
    if is_dataclass(kind) and kind.__module__ == module.__name__
}
"""The entries of `results.json` by name."""


@pytest.fixture
def full(fabricator):
    """A study in which every kind of entry occurs: sets, failures, a base, probabilities, groups, combinations."""
    made = fabricator([1, 2, 3], {"lora": "adapter", "full": "full"}, tasks=TASKS)
    data = made.data()
    data["tasks"][2] |= {"headline": "nll", "role": "forgetting", "margin": 0.1}
    made.json("data.json", data)
    for seed in made.seeds:
        made.run("lora", seed, 0.8)
        made.run("full", seed, *((0.9,) if seed < 3 else (0.2, "degenerate", "too bad")))
        believe(made.path / f"full/seed-{seed}", "tweets", 0.8, 0.8, seed)
    made.base(0.3)
    answer(made, "lora", 1, [("tech", "sport")] * 200, labels=made.labels)
    keep(made, ["text"] * 200, clusters=["a", "b"] * 100)
    pooling = {"mode": "mean", "normalise": True, "reason": "cross-validation"}
    made.json("full/seed-2/result.json", {**made.run("full", 2, 0.9), "pooling": pooling, "new": ["classifier"]})
    folder, rng = made.path / "full/ensemble", np.random.default_rng(3)
    ensemble = made.result(folder, "full", None, "full", 0.9, rng, "finished", None)
    made.json("full/ensemble/result.json", {**ensemble, "kind": "ensemble", "seeds": [1, 2], "of": [1, 2, 3]})
    return made


def kinds_in(value):
    """Names of the dataclasses that occur in a value."""
    if is_dataclass(value):
        inside = [getattr(value, each.name) for each in fields(value)]
        return {type(value).__name__}.union(*map(kinds_in, inside))
    if isinstance(value, dict | list | tuple):
        return set().union(*map(kinds_in, value.values() if isinstance(value, dict) else value))
    return set()


def explained(kind):
    """Names of the fields of a dataclass, inherited ones too, that have a docstring."""
    found = set()
    for each in filter(is_dataclass, kind.__mro__):
        body = ast.parse(inspect.getsource(each)).body[0].body
        for line, following in pairwise(body):
            if isinstance(line, ast.AnnAssign) and isinstance(following, ast.Expr):
                found.add(line.target.id)
    return found


def test_what_is_written_is_read_back(full):
    results = build(full.path)
    written = json.loads((full.path / "report" / "results.json").read_text(encoding="utf-8"))
    assert from_json(results.to_json()) == from_json(written) == results
    assert json.loads(json.dumps(results.to_json(), allow_nan=False)) == written
    not_yet = {"ExportResult"}  # has its place; nothing is taken out of a study so far
    assert kinds_in(results) >= set(KINDS) - not_yet, "else a kind of entry is not tried"


def test_format_1_is_read_too(full):
    """What it did not say is null, and "detectable" is what is now called "could see"."""
    now = build(full.path).to_json()
    former = {key: value for key, value in now.items() if key not in ("baselines", "vary", "training")}
    for task in former["tasks"]:
        del task["role"], task["cut"], task["leaked"]
    for pair in former["comparisons"]:
        pair["detectable"] = pair.pop("could_see")
        del pair["verdict_overall"], pair["p_failures"]
    for variant in former["variants"]:
        del variant["learning_rate"], variant["chosen_by"], variant["exports"]
        del variant["failures"]["limit"], variant["failures"]["least"]
        for found in variant["estimates"].values():
            del found["ci_seeds"], found["prediction"], found["expected"], found["without_leaks"]
    read = from_json({**former, "format": 1})
    assert read.format == 1 and read.baselines == [] and read.training is None
    assert [task.role for task in read.tasks] == ["in-domain", "shifted", "shifted"]
    assert [pair.could_see for pair in read.comparisons] == [pair["detectable"] for pair in former["comparisons"]]
    means = [variant.estimates["test/accuracy"].mean for variant in read.variants]
    assert means == [variant["estimates"]["test/accuracy"]["mean"] for variant in now["variants"]]


def test_a_study_that_has_only_just_begun_is_read_back(fabricator):
    made = fabricator([1, 2], {"full": "full"})
    (made.path / "data.json").unlink()
    results = build(made.path)
    assert from_json(json.loads((made.path / "report" / "results.json").read_text())) == results


@pytest.mark.parametrize("path", PATHS)
def test_a_documented_key_is_there(path):
    assert at(path) is not None


def test_a_key_that_is_not_there_is_missed():
    """Else the test above could not fail."""
    assert at("variants[].estimates{}.cj") is None and at("tasks[].nam") is None and at("comparisons{}.task") is None


@pytest.mark.parametrize("path", VALUES)
def test_words_are_those_of_the_design(path):
    assert set(at(path)["enum"]) == VALUES[path]


@pytest.mark.parametrize("name", KINDS)
def test_what_the_docstrings_of_fields_say_is_in_the_schema(name):
    whole = json_schema()
    properties = (whole if name == "Results" else whole["$defs"][name])["properties"]
    assert set(properties) == {each.name for each in fields(KINDS[name])}
    assert {key for key in explained(KINDS[name]) if "description" not in properties[key]} == set()


def test_keys_that_do_not_explain_themselves_are_explained():
    for path in ("tasks[].split", "variants[].runs[].status", "variants[].estimates{}.sd_floor", "across.gamma"):
        assert "description" in at(path), path


@pytest.mark.parametrize("content", [{"format": 1}, {}, []])
def test_what_is_no_results_is_refused(content):
    with pytest.raises(ValueError, match=r"variants|dict"):
        from_json(content)


def test_the_page_of_keys_is_the_schemas():
    page = Path(inspect.getfile(schema)).parents[1] / "README.md"
    assert page.read_text(encoding="utf-8") == markdown() + "\n", "finetune schema --results --markdown writes it"
