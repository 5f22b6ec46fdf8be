"""Training in float16: small gradients survive, overflowing steps are left out for the run that they happen to."""

import numpy as np
import pytest
import torch

from finetune.core.errors import Interrupted
from finetune.core.signals import StopRequest
from finetune.train import scaling
from finetune.train.meters import read_rows
from finetune.train.scaling import FIRST, GROWS, LossScale
from finetune.train.state import ReplicaState
from tests.train.workbench import fit, same

HALF = torch.float16


def test_training_in_float16_is_near_that_in_float32(topics_bench, tmp_path):
    full, half = (fit(topics_bench, tmp_path / str(dtype), dtype=dtype) for dtype in (torch.float32, HALF))
    np.testing.assert_allclose(half.column("loss"), full.column("loss"), rtol=0.02)
    np.testing.assert_allclose(half.column("gradient_norm"), full.column("gradient_norm"), rtol=0.05)
    assert half.trained.facts["overflowed"] == 0 and "overflowed" not in full.trained.facts


def test_small_gradients_vanish_only_without_a_scale(topics_bench, tmp_path, monkeypatch):
    """Of a loss that is a hundred-thousandth of what it was."""
    losses = type(topics_bench.task).losses
    monkeypatch.setattr(type(topics_bench.task), "losses", lambda self, *about: losses(self, *about) * 1e-5)
    scaled = fit(topics_bench, tmp_path / "scaled", dtype=HALF, max_steps=1)
    exact = fit(topics_bench, tmp_path / "exact", max_steps=1)
    monkeypatch.setattr(scaling, "FIRST", 1.0)
    plain = fit(topics_bench, tmp_path / "plain", dtype=HALF, max_steps=1)
    [wanted], [found], [lost] = (each.column("gradient_norm") for each in (exact, scaled, plain))
    assert found == pytest.approx(wanted, rel=0.05)
    assert abs(lost - wanted) > 0.05 * wanted


def test_steps_that_overflow_are_left_out_and_then_it_goes_on(topics_bench, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "FIRST", 2.0**40)
    before = topics_bench.model()
    fitted = fit(topics_bench, tmp_path, dtype=HALF, max_steps=30, learning_rate=1e-3)
    overflowed = fitted.trained.facts["overflowed"]
    assert 10 < overflowed < 30 and fitted.trained.diverged is None
    norms = fitted.column("gradient_norm")
    assert norms[:overflowed] == [None] * overflowed and all(norms[overflowed:])
    assert all(value.isfinite().all() for value in fitted.weights.values())
    few = fit(topics_bench, tmp_path / "few", dtype=HALF, max_steps=overflowed - 1)
    assert same(few.weights, {name: value.detach() for name, value in before.state_dict().items()})


def test_what_is_never_finite_has_diverged(topics_bench, tmp_path, monkeypatch):
    losses = type(topics_bench.task).losses
    monkeypatch.setattr(type(topics_bench.task), "losses", lambda self, *about: losses(self, *about) * float("inf"))
    fitted = fit(topics_bench, tmp_path, dtype=HALF, max_steps=40)
    assert "became inf at step 17" in fitted.trained.diverged, "the factor has been halved 17 times by then"


def test_a_run_that_was_stopped_goes_on_with_its_factor(topics_bench, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "FIRST", 2.0**40)
    whole = fit(topics_bench, tmp_path / "whole", dtype=HALF, max_steps=24)

    class After(StopRequest):
        requested = property(lambda _: len(read_rows(tmp_path / "part" / "metrics.jsonl")) >= 12, lambda *_: None)

    with pytest.raises(Interrupted):
        fit(topics_bench, tmp_path / "part", dtype=HALF, max_steps=24, stop=After())
    part = fit(topics_bench, tmp_path / "part", dtype=HALF, max_steps=24)
    assert part.trained.facts["resumed"] == 1
    assert same(part.weights, whole.weights)
    assert part.trained.facts["overflowed"] == whole.trained.facts["overflowed"] > 5


# One run's own


def scales(*states):
    return LossScale(states, torch.device("cpu"))


def test_each_run_has_a_factor_of_its_own():
    states = ReplicaState(), ReplicaState(scale=8.0)
    scale = scales(*states)
    assert scale.factors.tolist() == [FIRST, 8.0]
    assert scale.overflowed([1.0, 1.0], [1.0, float("inf")]) == [1]
    assert scale.factors.tolist() == [FIRST, 4.0]
    assert scale.overflowed([float("nan"), 1.0], [1.0, 1.0]) == [0]
    assert scale.factors.tolist() == [FIRST / 2, 4.0]
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    parameter.grad = torch.full((2, 3), 8.0)
    scale.unscale([parameter])
    assert parameter.grad.tolist() == [[16 / FIRST] * 3, [2.0] * 3]


def test_the_factor_grows_after_many_steps_and_falls_to_the_least():
    state = ReplicaState()
    scale = scales(state)
    for _ in range(GROWS):
        assert scale.overflowed([1.0], [1.0]) == []
    assert state.scale == 2 * FIRST
    tries = 0
    while scale.overflowed([1.0], [float("inf")]):
        tries += 1
    assert tries == 17 and state.scale < 1


def test_gradients_of_the_others_stay():
    parameter, norms = torch.nn.Parameter(torch.zeros(2, 3, 4)), torch.tensor([2.0, float("inf")])
    parameter.grad = torch.ones(2, 3, 4)
    scale = scales(ReplicaState(), ReplicaState())
    scale.overflowed([1.0, 1.0], norms.tolist())
    assert scale.left_out([parameter], norms) == [1]
    assert parameter.grad[0].eq(1).all() and parameter.grad[1].eq(0).all() and norms.tolist() == [2.0, 0.0]


def test_a_run_that_has_ended_has_no_say():
    ended = ReplicaState(stopped_early=True)
    assert scales(ended).overflowed([1.0], [float("inf")]) == [] and ended.overflowed == 0
