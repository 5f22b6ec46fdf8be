"""What the loop concludes from losses and scores, and that all of it survives a checkpoint."""

import json
import math
from dataclasses import asdict

import pytest

from finetune.train.state import ReplicaState
from tests.train.workbench import options


def watched(losses, norms=None, **divergence):
    replica, chosen = ReplicaState(), options(divergence={"window": 3, "explode_factor": 4.0, **divergence})
    for step, loss in enumerate(losses):
        replica.watch(step, loss, norms[step] if norms else 1.0, chosen)
        if replica.diverged:
            return replica.diverged, step
    return None, None


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_divergence(loss):
    reason, step = watched([1.0, loss])
    assert step == 1 and reason == f"the loss became {loss} at step 2"


def test_a_gradient_that_is_no_number_is_divergence():
    assert watched([1.0, 1.0], norms=[1.0, math.inf]) == ("the gradient's norm became inf at step 2", 1)


def test_an_exploded_loss_is_divergence_once_it_lasts():
    assert watched([1.0] * 3 + [30.0]) == (
        "the loss exploded: 10.7 over the last 3 steps up to step 4, 1 over the first",
        3,
    )
    assert watched([1.0] * 3 + [9.0, 1.0, 1.0]) == (None, None), "one outlier is not"
    assert watched([1.0] * 3 + [3.9] * 10) == (None, None), "nor is less than the factor"
    assert watched([1.0] * 3 + [4.1] * 10)[1] == 5


def test_falling_losses_and_tiny_ones_are_fine():
    assert watched([3.0, 2.0, 1.0, 0.5, 0.1, 0.01]) == (None, None)
    assert watched([0.001] * 3 + [0.3] * 10) == (None, None), "0.3 nats are no explosion"
    assert watched([0.001] * 3 + [0.5] * 10)[0] is not None


def judged(scores, higher=False, **early_stopping):
    replica = ReplicaState()
    chosen = options(early_stopping=early_stopping or None)
    better = [replica.judge(10 * step, score, higher, chosen) for step, score in enumerate(scores, start=1)]
    return replica, better


def test_the_best_score_is_remembered_in_the_metrics_own_direction():
    replica, better = judged([3.0, 2.0, 2.5, 1.0])
    assert better == [True, True, False, True] and (replica.best_score, replica.best_step) == (1.0, 40)
    replica, better = judged([0.3, 0.2, 0.5], higher=True)
    assert better == [True, False, True] and (replica.best_score, replica.best_step) == (0.5, 30)


def test_of_equal_scores_the_first_is_best():
    assert judged([1.0, 1.0])[1] == [True, False]


@pytest.mark.parametrize("higher", [True, False])
def test_a_score_that_is_no_number_is_never_the_best(higher):
    replica, better = judged([math.nan, 0.5, math.nan], higher)
    assert better == [False, True, False] and replica.best_score == 0.5


def test_training_stops_when_patience_ends():
    replica, _ = judged([1.0, 2.0, 3.0], patience=3)
    assert replica.active and replica.waited == 2
    replica, _ = judged([1.0, 2.0, 0.5, 2.0, 3.0, 4.0], patience=3)
    assert not replica.active and replica.stopped_early and replica.best_step == 30


def test_without_early_stopping_nothing_stops():
    assert judged([1.0] + [2.0] * 50)[0].active


def test_a_gain_under_min_delta_is_kept_but_does_not_renew_patience():
    replica, better = judged([1.0, 0.95, 0.94], patience=2, min_delta=0.1)
    assert better == [True, True, True] and replica.stopped_early and replica.best_step == 30


def test_all_of_it_survives_json():
    replica, _ = judged([1.0, 2.0], patience=5)
    replica.watch(3, 1.25, 1.0, options())
    assert ReplicaState(**json.loads(json.dumps(asdict(replica)))) == replica
