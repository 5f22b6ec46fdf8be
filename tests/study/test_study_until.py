"""A study whose seeds are added until its means are known well enough."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from finetune import recipe
from finetune.core.progress import Progress
from finetune.core.run_dir import read_json
from finetune.stats.sequence import confidence_sequence
from finetune.study import study
from finetune.study.running import run_study

ONE_BY_ONE = "train.replicas=1"

SHORT = ("train.min_steps=24", "train.evaluations=0", "data.split.validation=0")
"""Runs of few steps: the seeds are what matters here."""


class Listening(Progress):
    """Keeps what a study says."""

    def __init__(self):
        super().__init__()
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def start(tmp_path):
    """start(recipe file, 'train.epochs=2') -> what the study came to, and what it said."""

    def run(path, *overrides, output="runs"):
        listening = Listening()
        outcome = run_study(recipe.load(path, [*SHORT, *overrides]), tmp_path / output, listening)
        return outcome, listening.said

    return run


@pytest.fixture
def only_full(topics):
    topics.write_text("\n".join(line for line in topics.read_text().splitlines() if "linear:" not in line))
    return topics


def until(width, at_least=4, at_most=7):
    return f"seeds={{until: {{ci_width: {width}}}, at_least: {at_least}, at_most: {at_most}}}"


def scores(outcome, variant="full"):
    """Accuracy by seed, as the runs' own files have it."""
    found = {path.parent.name: read_json(path) for path in (outcome.folder / variant).glob("seed-*/result.json")}
    return {int(name.removeprefix("seed-")): result["scores"]["test/accuracy"] for name, result in found.items()}


def widths(found):
    """Width in points of the confidence sequence after n seeds, by n."""
    ends = {n: confidence_sequence([found[seed] for seed in range(n)]) for n in range(2, len(found) + 1)}
    return {n: 100 * (interval[1] - interval[0]) for n, interval in ends.items() if interval}


def test_seeds_are_added_until_every_variant_is_narrow(topics, start):
    """All seeds are run first, so that it is known where it has to stop."""
    whole, _ = start(topics, "seeds=7", ONE_BY_ONE, output="whole")
    wide = {n: max(widths(scores(whole, name))[n] for name in ("linear", "full")) for n in range(4, 8)}
    limit = wide[6]
    stop = next(n for n in range(4, 8) if wide[n] <= limit)
    assert stop > 4, "otherwise nothing would be added"
    outcome, said = start(topics, until(limit), ONE_BY_ONE)
    for name in ("linear", "full"):
        assert scores(outcome, name) == {seed: scores(whole, name)[seed] for seed in range(stop)}
    assert outcome.failed == [] and outcome.results.to_json()["seeds"] == list(range(stop))
    looks = [line for line in said if line.startswith("after ")]
    assert [line.split()[1] for line in looks] == [str(n) for n in range(4, stop + 1)]
    assert looks[0].endswith("so seeds are added") and looks[-1].endswith("so no seeds are added")
    assert any(line.startswith("run 1 of 8 to 14: linear, seed 0") for line in said)

    again, said = start(topics, until(limit), ONE_BY_ONE)
    assert said[-1] == "every run is finished already; writing the report again"
    assert again.results.to_json()["seeds"] == list(range(stop))


def test_it_ends_at_most_where_it_should(only_full, start):
    outcome, said = start(only_full, until(0.01, 4, 6), ONE_BY_ONE)
    assert sorted(scores(outcome)) == list(range(6)) and outcome.failed == []
    assert said[-1].endswith("and these are all seeds that may be")
    assert read_json(outcome.folder / "report" / "results.json")["seeds"] == list(range(6))
    _, said = start(only_full, until(0.01, 4, 6), ONE_BY_ONE)
    assert said[-1] == "every run is finished already; writing the report again"


def test_as_many_are_added_as_train_side_by_side(only_full, start, monkeypatch):
    original, groups = study.run, []

    def run(variant, replicas, *rest):
        groups.append([replica.streams.seed for replica in replicas])
        return original(variant, replicas, *rest)

    monkeypatch.setattr(study, "run", run)
    start(only_full, until(0.01, 3, 8), "train.replicas=2")
    assert groups == [[0, 1], [2], [3, 4], [5, 6], [7]]


def test_the_rule_is_kept_and_changes_no_digest(only_full, start):
    outcome, _ = start(only_full, until(500.0, 4, 6))
    resolved = recipe.read_resolved(outcome.folder / "resolved.yaml")
    assert resolved.until == recipe.load(only_full, [until(500.0, 4, 6)]).until
    assert resolved.seeds == list(range(6))
    assert resolved.digest == recipe.load(only_full, [*SHORT, "seeds=3"]).digest
    assert "at_most: 6" in (outcome.folder / "resolved.yaml").read_text()


def test_nothing_is_dropped_when_seeds_are_added(only_full, start, monkeypatch):
    """Runs that learnt nothing, and one that ended in an error, stay, beside the mean of those that work."""
    original = study.run

    def run(variant, replicas, session, *rest):
        [replica] = replicas
        if replica.streams.seed == 1:
            raise RuntimeError("a cosmic ray")
        if replica.streams.seed == 2:
            train = variant.recipe.train.model_copy(update={"learning_rate": 1e-12})
            session = replace(session, recipe=variant.recipe.model_copy(update={"train": train}))
        return original(variant, replicas, session, *rest)

    monkeypatch.setattr(study, "run", run)
    outcome, said = start(only_full, until(0.01, 4, 6), ONE_BY_ONE)
    runs = {run["seed"]: run["status"] for run in outcome.results.to_json()["variants"][0]["runs"]}
    assert len(runs) == 6 and runs[1] == "error" and runs[2] == "degenerate"
    kept = scores_of_report(outcome)
    assert len(kept) == 5 and 2 in kept, "all but the one that has no score"
    found = outcome.results.to_json()["variants"][0]["estimates"]["test/accuracy"]
    works = [score for seed, score in kept.items() if seed != 2]
    assert found["n"] == 4 and found["mean"] == pytest.approx(sum(works) / 4)
    assert found["expected"]["mean"] == pytest.approx((sum(kept.values()) + 1 / 3) / 6), "the error: as by no training"
    assert outcome.results.to_json()["variants"][0]["failures"]["n"] == 6
    assert [line.split()[1] for line in said if line.startswith("after ")] == ["4", "5", "6"]


def scores_of_report(outcome):
    runs = outcome.results.to_json()["variants"][0]["runs"]
    return {run["seed"]: run["scores"]["test/accuracy"] for run in runs if run["scores"]}


def test_seeds_that_were_there_before_count(only_full, start):
    first, _ = start(only_full, "seeds=7", ONE_BY_ONE)
    before = {path: path.stat().st_mtime_ns for path in first.folder.glob("full/*/result.json")}
    outcome, said = start(only_full, until(0.01, 4, 8), ONE_BY_ONE)
    assert [line.split()[1] for line in said if line.startswith("after ")] == ["7", "8"]
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert json.loads((outcome.folder / "report" / "results.json").read_text())["seeds"] == list(range(8))
