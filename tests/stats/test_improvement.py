"""The probability of improvement, and how well seeds know it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats.improvement import improvement_interval, probability_of_improvement, share_interval


def test_by_hand():
    # Pairs: 1>0, 1=1, 2>0, 2>1: three wins and half a tie of four.
    assert probability_of_improvement([1, 2], [0, 1]) == 3.5 / 4
    assert probability_of_improvement([1, 2], [0, 1], higher_is_better=False) == 0.5 / 4
    assert probability_of_improvement([], [1]) is None


def test_bounds_lie_their_own_standard_errors_away():
    low, high = improvement_interval(0.7, 5, 8, 0.9)
    bound = stats.t.ppf(0.95, 39)
    for p in (low, high):
        variance = p * (1 - p) * (1 + 5.5 * (1 - p) / (2 - p) + 5.5 * p / (1 + p)) / 40
        assert abs(0.7 - p) == pytest.approx(bound * variance**0.5)


def test_a_clean_sweep_of_few_seeds_is_not_certain():
    assert improvement_interval(1.0, 3, 3)[0] < 0.5 < improvement_interval(1.0, 5, 5)[0] < 0.7
    assert improvement_interval(1.0, 3, 3)[1] == 1.0
    assert improvement_interval(1.0, 1, 5) is None


@given(st.floats(0, 1), st.integers(2, 20), st.integers(2, 20))
def test_it_holds_the_value_and_mirrors(value, left, right):
    low, high = improvement_interval(value, left, right)
    back = improvement_interval(1 - value, right, left)
    assert 0 <= low <= value <= high <= 1 and back == pytest.approx((1 - high, 1 - low), abs=1e-6)


@given(st.integers(1, 30), st.data())
def test_against_a_fixed_score_it_is_wilsons(seeds, data):
    wins = data.draw(st.integers(0, seeds))
    expected = stats.binomtest(wins, seeds).proportion_ci(0.95, method="wilson")
    assert share_interval(wins / seeds, seeds) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("truth", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("seeds", [5, 10])
def test_it_covers(seeds, truth):
    rng = np.random.default_rng(1)
    left, right = rng.normal(2**0.5 * stats.norm.ppf(truth), 1, (700, seeds)), rng.normal(size=(700, seeds))
    bounds = [
        improvement_interval(probability_of_improvement(*pair), seeds, seeds) for pair in zip(left, right, strict=True)
    ]
    assert 0.935 < np.mean([low <= truth <= high for low, high in bounds]) < 0.985
