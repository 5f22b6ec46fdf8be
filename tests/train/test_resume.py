"""A run that was stopped, killed or crashed, and run again, is the run that was never interrupted."""

import json

import pytest

from finetune.core.errors import DiskFull, Interrupted
from finetune.core.signals import StopRequest
from finetune.train import checkpoint, loop
from finetune.train.meters import read_rows
from tests.train.workbench import fit, same, without_seconds


class Killed(BaseException):
    """As abrupt as SIGKILL."""


class StopAfter(StopRequest):
    """Asked to stop once step ``step`` is in the log of the run in ``folder``."""

    def __init__(self, folder, step):
        self.log, self.step = folder / "metrics.jsonl", step

    @property
    def requested(self):
        return any(row["kind"] == "train" and row["step"] >= self.step for row in read_rows(self.log))


SETTINGS = {"max_steps": 12, "evaluations": 4, "micro_batch_size": 5}


@pytest.fixture(scope="module")
def whole(dropout_bench, tmp_path_factory):
    """The run that was never interrupted."""
    return fit(dropout_bench, tmp_path_factory.mktemp("whole"), seed=7, **SETTINGS)


def stopped(bench, folder, step, **settings):
    with pytest.raises(Interrupted, match=rf"stopped after step {step} of \d+, which is saved"):
        fit(bench, folder, stop=StopAfter(folder, step), **settings)


def untimed(facts):
    """What of a run's facts does not depend on the clock."""
    timed = ("tokens_per_second", "seconds", "phases", "utilisation")
    return {name: value for name, value in facts.items() if name not in timed}


@pytest.mark.parametrize("steps", [[6], [1, 2, 11], [12]], ids=str)
def test_stopping_and_running_again_changes_nothing(dropout_bench, tmp_path, whole, steps):
    """Also across an epoch's end (6 steps), before an evaluation, and after the last step."""
    for step in steps:
        stopped(dropout_bench, tmp_path, step, seed=7, **SETTINGS)
    resumed = fit(dropout_bench, tmp_path, seed=7, **SETTINGS)
    assert same(resumed.weights, whole.weights)
    assert without_seconds(resumed.rows) == without_seconds(whole.rows)
    assert untimed(resumed.trained.facts) == {**untimed(whole.trained.facts), "resumed": len(steps)}
    assert resumed.trained.facts["utilisation"] > 0


@pytest.mark.parametrize("event", ["rate", "row", "update"])
@pytest.mark.parametrize("number", [1, 3, 4])
def test_killed_anywhere_and_run_again(dropout_bench, tmp_path, whole, monkeypatch, event, number):
    """With a checkpoint at every step. A kill between an evaluation and the next checkpoint repeats the evaluation."""
    place = {"rate": (loop, "set_rate"), "row": (loop.MetricsLog, "write"), "update": (loop._Training, "update")}[event]
    original, left = getattr(*place), [3 * number]

    def kill(*arguments, **named):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return original(*arguments, **named)

    settings = {**SETTINGS, "checkpoint_seconds": 0.0}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(*place, kill)
        fit(dropout_bench, tmp_path, seed=7, **settings)
    resumed = fit(dropout_bench, tmp_path, seed=7, **settings)
    assert same(resumed.weights, whole.weights)
    assert without_seconds(resumed.rows) == without_seconds(whole.rows)


def test_killed_without_a_checkpoint_starts_over(dropout_bench, tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "gradient_norms", lambda *_: (_ for _ in ()).throw(Killed()))
        fit(dropout_bench, tmp_path, seed=7, **SETTINGS)
    resumed = fit(dropout_bench, tmp_path, seed=7, **SETTINGS)
    assert same(resumed.weights, whole.weights) and without_seconds(resumed.rows) == without_seconds(whole.rows)
    assert resumed.trained.facts["resumed"] == 0


def test_stopped_while_validating_the_evaluation_is_made_again(dropout_bench, tmp_path, whole):
    """`predict` gives up as soon as it is asked to stop; the step before it is saved."""

    class StopWhileScoring(StopRequest):
        """The loop asks once a step, so the fourth time is in the first evaluation, after step 3."""

        def __init__(self):
            self.asked = 0

        @property
        def requested(self):
            self.asked += 1
            return self.asked == 4

    with pytest.raises(Interrupted, match="while scoring"):
        fit(dropout_bench, tmp_path, seed=7, stop=StopWhileScoring(), **SETTINGS)
    state, _ = checkpoint.load(tmp_path / "checkpoints")
    assert state["position"]["step"] == 3 and state["replica"]["validated"] == 0
    resumed = fit(dropout_bench, tmp_path, seed=7, **SETTINGS)
    assert same(resumed.weights, whole.weights) and without_seconds(resumed.rows) == without_seconds(whole.rows)


def test_early_stopping_survives_interruption(topics_bench, tmp_path):
    settings = {"learning_rate": 0.02, "max_steps": 30, "schedule": "constant", "evaluations": 15}
    settings |= {"early_stopping": {"patience": 3}}
    whole = fit(topics_bench, tmp_path / "whole", **settings)
    stopped(topics_bench, tmp_path / "parts", whole.trained.facts["steps"] - 3, **settings)
    resumed = fit(topics_bench, tmp_path / "parts", **settings)
    assert whole.trained.facts["stopped_early"] and resumed.trained.facts["stopped_early"]
    assert same(resumed.weights, whole.weights)
    assert without_seconds(resumed.rows) == without_seconds(whole.rows)


def test_a_finished_run_is_not_trained_again(topics_bench, tmp_path, monkeypatch):
    """Its last checkpoint is there until the result is written; running again goes straight to scoring."""
    settings = {"checkpoint_seconds": 0.0, "evaluations": 2}
    first = fit(topics_bench, tmp_path, **settings)
    monkeypatch.setattr(loop.Accumulation, "run", lambda *_: pytest.fail("trained again"))
    second = fit(topics_bench, tmp_path, **settings)
    assert same(first.weights, second.weights) and first.rows == second.rows
    before, after = first.trained.facts, second.trained.facts
    assert untimed(after) == {**untimed(before), "resumed": 1} and after["utilisation"] > 0
    assert after["seconds"] >= before["seconds"] and after["phases"].keys() == before["phases"].keys()
    assert all(after["phases"][name] >= spent for name, spent in before["phases"].items() if name != "writing"), (
        "it counts what it took before"
    )


def test_a_diverged_run_stays_diverged(topics_bench, tmp_path):
    settings = {"checkpoint_seconds": 0.0, "learning_rate": 1e30, "warmup": 0.0, "clip": None}
    first = fit(topics_bench, tmp_path, **settings)
    second = fit(topics_bench, tmp_path, **settings)
    assert first.trained.diverged == second.trained.diverged and same(first.weights, second.weights)


def test_time_and_counts_go_on(topics_bench, tmp_path):
    stopped(topics_bench, tmp_path, 5, **SETTINGS)
    state = json.loads(next((tmp_path / "checkpoints").glob("step-*/state.json")).read_text())
    assert state["position"]["step"] == 5 and state["replica"]["examples"] == 40
    resumed = fit(topics_bench, tmp_path, **SETTINGS)
    assert resumed.trained.facts["examples"] == 96
    assert resumed.rows[-1]["seconds"] > state["position"]["seconds"] > 0


def test_checkpoints_come_as_often_as_asked(topics_bench, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, *_: saved.append(step))
    fit(topics_bench, tmp_path / "often", max_steps=4, checkpoint_seconds=0.0)
    assert saved == [1, 2, 3, 4, 4], "the last also says that nothing is left to do"
    saved.clear()
    fit(topics_bench, tmp_path / "seldom", max_steps=4, checkpoint_seconds=1000.0)
    assert saved == []


def test_a_full_disk_ends_training_and_freed_room_lets_it_finish(dropout_bench, tmp_path, whole, monkeypatch):
    write, left = checkpoint.save_file, [5]

    def filling_up(tensors, path):
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(28, "No space left on device")
        write(tensors, path)

    settings = {**SETTINGS, "checkpoint_seconds": 0.0}
    with monkeypatch.context() as patch, pytest.raises(DiskFull):
        patch.setattr(checkpoint, "save_file", filling_up)
        fit(dropout_bench, tmp_path, seed=7, **settings)
    assert checkpoint.load(tmp_path / "checkpoints")[0]["position"]["step"] == 4
    resumed = fit(dropout_bench, tmp_path, seed=7, **settings)
    assert same(resumed.weights, whole.weights) and without_seconds(resumed.rows) == without_seconds(whole.rows)
