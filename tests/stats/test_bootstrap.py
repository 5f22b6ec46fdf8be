"""The expanded BCa interval against SciPy's BCa, and against a known truth."""

import numpy as np
import pytest
from scipy import stats

from finetune.stats.bootstrap import bca_interval

SKEWED = np.arange(12.0) ** 3


def test_it_is_scipys_bca_further_out():
    reach = (12 / 11) ** 0.5 * stats.t.ppf(0.975, 11)  # and not 1.96
    further = 1 - 2 * stats.norm.sf(reach)
    drawn = stats.bootstrap((SKEWED,), np.mean, confidence_level=further, n_resamples=100_000, rng=1)
    low, high = drawn.confidence_interval
    found = bca_interval(SKEWED, np.random.default_rng(0), resamples=100_000)
    assert found == pytest.approx((low, high), abs=0.01 * (high - low))


def test_it_leans_where_the_values_do():
    low, high = bca_interval(SKEWED, np.random.default_rng(0))
    assert high - SKEWED.mean() > 1.3 * (SKEWED.mean() - low)
    mirrored = bca_interval(-SKEWED, np.random.default_rng(0))
    assert mirrored == pytest.approx((-high, -low), abs=0.01 * (high - low))


def test_ties_push_it_to_neither_side():
    """Five of ten are right: a quarter of the resamples have exactly five."""
    low, high = bca_interval(np.array([0.0, 1.0] * 5), np.random.default_rng(0))
    assert low + high == pytest.approx(1.0, abs=0.02)


def test_it_covers_the_mean_of_ten_where_plain_bca_does_not():
    """1000 samples: the standard error of 95 % covered is 0.7 points."""
    draws = np.random.default_rng(5).normal(size=(1000, 10))
    wide, plain = (0, 0)
    for values in draws:
        low, high = bca_interval(values, np.random.default_rng(0), resamples=2000)
        wide += low <= 0 <= high
        interval = stats.bootstrap((values,), np.mean, n_resamples=999, rng=0, vectorized=True).confidence_interval
        plain += interval.low <= 0 <= interval.high
    assert 930 <= wide <= 970 and plain < 920
