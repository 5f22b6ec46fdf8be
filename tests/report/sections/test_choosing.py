"""The section on which seed to take away."""

from __future__ import annotations

import json

import pytest

from finetune import report
from finetune.report.sections import choosing
from finetune.results.compute import results_of
from finetune.results.reading import read_study

VALIDATED = {1: 0.5, 2: 0.2, 3: 0.9, 4: 0.6, 5: 0.7}


@pytest.fixture
def validated(study):
    """The study, with one validation of each run of `full`: seed 2 is the best by it."""
    for seed, loss in VALIDATED.items():
        path = study.path / "full" / f"seed-{seed}" / "metrics.jsonl"
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["kind"] == "train"]
        record = {"kind": "evaluation", "step": 96, "epoch": 2.4, "seconds": 9.0, "scores": {"loss": loss}}
        path.write_text("\n".join([*kept, json.dumps(record), ""]))
    for seed in VALIDATED:
        path = study.path / "lora" / f"seed-{seed}" / "metrics.jsonl"
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["kind"] == "train"]
        path.write_text("\n".join([*kept, ""]))
    return study


def test_it_says_what_the_choice_is_worth(validated):
    found = read_study(validated.path)
    results = results_of(found)
    full = results.variant("full")
    assert full.choice is not None and (full.choice.seed, full.choice.seeds, full.choice.metric) == (2, 5, "loss")
    scores = {run.seed: run.scores["test/accuracy"] for run in full.runs}
    worth = full.choice.worth["test/accuracy"]
    assert worth.chosen == scores[2] and worth.mean == pytest.approx(sum(scores.values()) / 5)
    # Choosing by validation cannot surpass the best by the test set itself.
    assert min(scores.values()) <= worth.expected_chosen <= worth.expected_best <= max(scores.values())
    assert results.variant("lora").choice is None
    [section] = choosing.sections(found, results)
    [row] = [row for row in section.blocks[1].rows if row[0].text == "full"]
    assert row[2].text == "seed 2 of 5, by loss"


def test_exports_are_listed(validated):
    entry = {"kind": "transformers", "seed": 2, "certificate": "0123456789abcdef" * 2, "folder": "tuned"}
    content = {"format": 1, "variants": {"full": [{**entry, "agreement": 1.0, "asked": 500}]}}
    (validated.path / "exports.json").write_text(json.dumps(content))
    results = report.build(validated.path)
    assert results.variant("full").exports[0].folder == "tuned"
    text = (validated.path / "report" / "report.md").read_text()
    assert "| full | 2 | transformers | tuned |" in text and "0123456789ab" in text


def test_without_validation_there_is_no_section(fabricator):
    made = fabricator([1, 2], {"full": "full"})
    for seed in made.seeds:
        made.run("full", seed, 0.9)
        path = made.path / "full" / f"seed-{seed}" / "metrics.jsonl"
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["kind"] == "train"]
        path.write_text("\n".join([*kept, ""]))
    found = read_study(made.path)
    assert choosing.sections(found, results_of(found)) == []
