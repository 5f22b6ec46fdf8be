"""Intervals from leaving out one unit at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats.jackknife import interval, share_interval


def without_each(values):
    return [np.delete(values, unit).mean() for unit in range(len(values))]


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12), st.sampled_from([0.8, 0.95]))
def test_of_a_mean_it_is_the_t_interval(values, level):
    found = interval(np.mean(values), without_each(values), level)
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    assert found == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=1e-6)


def test_a_ratio_by_hand():
    """10 / 4 of (1, 1), (3, 1), (6, 2): without each 9/3, 7/3, 4/2, whose SD is 0.5092; t(0.975, 2) = 4.302653."""
    half = 4.302653 * 2 * 0.5091751 / 3**0.5
    assert interval(2.5, [3, 7 / 3, 2]) == pytest.approx((2.5 - half, 2.5 + half), abs=1e-5)


def test_a_share_by_hand():
    """1 of 4, odds 1/3, SD of the four values 1/2: log odds -1.0986 +- 3.182446 * (1/4) / (3/16)."""
    half = 3.182446 * 4 / 3
    low, high = (1 / (1 + np.exp(1.0986123 - sign * half)) for sign in (-1, 1))
    assert share_interval(0.25, without_each([1, 0, 0, 0])) == pytest.approx((low, high), abs=1e-6)


@given(st.lists(st.integers(0, 1), min_size=2, max_size=12))
def test_a_share_stays_between_0_and_1_and_mirrors(values):
    share = np.mean(values)
    found = share_interval(share, without_each(values))
    if share in (0, 1):
        assert found is None
        return
    low, high = found
    assert 0 < low < share < high < 1
    opposite = share_interval(1 - share, without_each(1 - np.array(values)))
    assert opposite == pytest.approx((1 - high, 1 - low))


def test_units_that_change_nothing_say_nothing():
    assert share_interval(0.5, [0.5, 0.5, 0.5]) is None
    assert interval(0.1 + 0.2, [0.3, 0.1 + 0.2]) == (0.1 + 0.2, 0.1 + 0.2), "rounding is no spread"
