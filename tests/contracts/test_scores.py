"""Scores of every task depend on nothing but the example: not on what it is scored with, how many at once, in which
order, what a tokenizer fills texts up with and where, or what examples share."""

import math

import numpy as np
import pytest
import torch

from finetune.core.registry import TASKS
from finetune.evaluate.predict import predictions_of
from finetune.replicas.group import ReplicaGroup
from finetune.tasks.batching import Batching
from tests.contracts.battery import combinations, every

WAYS = {
    "one at a time": {"size": 1},
    "five at a time": {"size": 5},
    "in another order": {"reverse": True},
    "padded at the left": {"padding_side": "left"},
    "of equal length together": {"batching": Batching.SAME_LENGTH},
    "each alone": {"batching": Batching.SINGLE},
    "padded": {"batching": Batching.PADDED},
}
every_combination = every(combinations(TASKS))


def scored(battery, model, size=32, reverse=False, padding_side=None, batching=None):
    """What the model of one run says of the held-out examples, in their order."""
    task, examples = battery.data.task, list(battery.data.held_out["test"].examples)
    before, answering = task.tokenizer.padding_side, task.answering
    if batching is not None:
        task = task.sharing(batching, max(batching, answering))
    if padding_side:
        task.tokenizer.padding_side = padding_side
    try:
        with torch.inference_mode():
            asked = examples[::-1] if reverse else examples
            [found] = predictions_of(ReplicaGroup(model), task, asked, size, battery.runtime())
    finally:
        task.tokenizer.padding_side = before
    found = task.completed(asked, found)
    return found[::-1] if reverse else found


@every_combination
def test_scores_depend_on_the_example_alone(batteries, outcomes, combination):
    battery, model = batteries(combination), outcomes(combination, 1).model
    wanted = scored(battery, model)
    assert len(wanted) == 12
    for way, settings in WAYS.items():
        found = scored(battery, model, **settings)
        for one, other in zip(found, wanted, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-4, abs=1e-5), way
            for column in ("margin", "margin_norm"):
                value, expected = getattr(one, column), getattr(other, column)
                assert (value is None) == (expected is None), way
                assert value is None or value == pytest.approx(expected, rel=1e-3, abs=1e-4), way
            if other.probabilities is not None:
                np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-3, atol=1e-5)
            assert same(one.text, other.text), f"{way}: {one.text!r} for {other.text!r}"


def same(one, other):
    """Equal texts, or numbers that differ by rounding."""
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-4, abs_tol=1e-5)
    except ValueError:
        return one == other
