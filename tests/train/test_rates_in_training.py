"""Rates that adapt, inside the loop: what is scored and kept, what the log says, and that stopping changes nothing."""

import pytest
import torch

from finetune.core.errors import Interrupted
from finetune.core.signals import StopRequest
from finetune.replicas.group import ReplicaGroup
from finetune.train import checkpoint
from finetune.train.meters import read_rows
from tests.train.workbench import fit, furthest, make_runtime, same, scores, without_seconds

PRODIGY = {"optimizer": "prodigy", "learning_rate": 1.0, "warmup": 0.0, "schedule": "constant"}
PRODIGY |= {"prodigy": {"d0": 1e-3, "d_coef": 0.3}}  # so that it arrives within a few steps, at a rate that learns
FREE = {"optimizer": "schedule-free", "learning_rate": 0.02}
PLATEAU = {"schedule": "plateau", "learning_rate": 0.03, "evaluations": 12, "max_steps": 24}


class After(StopRequest):
    """Asked to stop once a step is in the log."""

    def __init__(self, folder, step):
        self.log, self.step = folder / "metrics.jsonl", step

    @property
    def requested(self):
        return any(row["kind"] == "train" and row["step"] >= self.step for row in read_rows(self.log))


@pytest.mark.parametrize(
    "changes", [FREE, {**FREE, "keep": "last"}, PRODIGY, PLATEAU], ids=["free", "last", "prodigy", "plateau"]
)
def test_stopping_and_running_again_changes_nothing(dropout_bench, tmp_path, changes):
    changes = {"evaluations": 4, **changes}
    whole = fit(dropout_bench, tmp_path / "whole", seed=7, **changes)
    for step in (1, 7):
        with pytest.raises(Interrupted):
            fit(dropout_bench, tmp_path / "parts", seed=7, stop=After(tmp_path / "parts", step), **changes)
    resumed = fit(dropout_bench, tmp_path / "parts", seed=7, **changes)
    assert same(resumed.weights, whole.weights)
    assert without_seconds(resumed.rows) == without_seconds(whole.rows)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_averages_are_what_is_scored_and_kept(topics_bench, tmp_path, keep):
    fitted = fit(topics_bench, tmp_path / "one", evaluations=6, keep=keep, **FREE)
    losses = [row["loss"] for row in fitted.column("scores", "evaluation")]
    kept = scores(topics_bench, ReplicaGroup(fitted.model), make_runtime(tmp_path))[0]["loss"]
    assert kept == (min(losses) if keep == "best" else losses[-1])


def test_what_is_kept_is_the_average_and_not_where_gradients_were_taken(topics_bench, tmp_path):
    """The last checkpoint has both sequences: y among the weights, z in the optimizer, decayed parameters first."""
    fitted = fit(topics_bench, tmp_path, checkpoint_seconds=0.0, **FREE)
    _, tensors = checkpoint.load(tmp_path / "checkpoints")
    named = dict(fitted.model.named_parameters())
    for number, name in enumerate(sorted(named, key=lambda name: named[name].ndim < 2)):
        y, z = tensors["weights"][name], tensors["optimizer"][str(number)]["z"].flatten()
        x = (y - (1 - 0.9) * z) / 0.9
        torch.testing.assert_close(named[name].detach().flatten(), x, rtol=1e-4, atol=1e-6)
    assert (
        furthest(fitted.weights, {name: tensors["weights"][name].view_as(value) for name, value in named.items()})
        > 0.01
    )


def test_scoring_the_averages_does_not_change_training(topics_bench, tmp_path):
    never = fit(topics_bench, tmp_path / "never", **FREE)
    often = fit(topics_bench, tmp_path / "often", evaluations=6, keep="last", **FREE)
    assert same(never.weights, often.weights) and never.column("loss") == often.column("loss")


def test_the_log_has_the_rate_that_prodigy_has_found(topics_bench, tmp_path):
    steady = fit(topics_bench, tmp_path / "steady", max_steps=30, **PRODIGY)
    rates = steady.column("learning_rate")
    assert rates[0] == 1e-3 and rates == sorted(rates) and rates[-1] > 2e-3
    losses = steady.column("loss")
    assert min(losses) < 0.8 * losses[0]
    falling = fit(topics_bench, tmp_path / "falling", max_steps=30, **{**PRODIGY, "schedule": "linear"})
    assert falling.column("learning_rate")[-1] < max(falling.column("learning_rate"))


@pytest.mark.parametrize("patience", [1, 2])
def test_the_rate_falls_when_the_score_no_longer_improves(topics_bench, tmp_path, patience):
    """As found anew from the scores in the log."""
    fitted = fit(topics_bench, tmp_path, warmup=0.0, plateau={"factor": 0.25, "patience": patience}, **PLATEAU)
    rate, best, waited, expected = 0.03, float("inf"), 0, []
    for row in fitted.rows:
        if row["kind"] == "train":
            expected.append(rate)
            continue
        waited, best = (0, row["scores"]["loss"]) if row["scores"]["loss"] < best else (waited + 1, best)
        if waited == patience:
            rate, waited = rate * 0.25, 0
    assert fitted.column("learning_rate") == pytest.approx(expected)
    assert len({*expected}) > 2, "it fell more than once"


def test_without_evaluations_no_plateau_is_found(topics_bench, tmp_path):
    fitted = fit(topics_bench, tmp_path, **{**PLATEAU, "evaluations": 0, "warmup": 0.0})
    assert set(fitted.column("learning_rate")) == {0.03}
