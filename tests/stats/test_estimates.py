"""Estimates against answers worked out by hand, SciPy's own, and simulations with a known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats import estimate, failure_rate, sd_factors, spread, t_interval

scores = st.lists(st.integers(-1000, 1000).map(lambda k: k / 1000), min_size=2, max_size=12)


def test_estimate_by_hand():
    found = estimate([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.sd, found.median, found.min, found.max) == (3, 2.0, 1.0, 2.0, 1.0, 3.0)
    # t(0.975, 2) = 4.302653 from a printed table; half width 4.302653 / sqrt(3)
    assert found.ci == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert found.reason is None and "Student t" in found.method


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_is_scipys(level):
    values = np.random.default_rng(0).normal(size=5)
    expected = stats.t.interval(level, 4, loc=values.mean(), scale=stats.sem(values))
    assert estimate(values, level).ci == pytest.approx(expected)


def test_one_seed_has_no_spread():
    found = estimate([0.9])
    assert (found.n, found.mean, found.sd, found.ci) == (1, 0.9, None, None)
    assert found.reason == "one seed says nothing about the spread; run at least two"


def test_no_seed_has_nothing():
    found = estimate([])
    assert (found.n, found.mean, found.ci) == (0, None, None) and "no run" in found.reason


def test_equal_scores_have_exactly_no_spread():
    found = estimate([0.1, 0.1, 0.1])
    assert found.sd == 0.0 and "no width" in found.reason


@given(scores, st.randoms())
def test_order_of_seeds_does_not_matter(values, random):
    shuffled = random.sample(values, len(values))
    first, second = estimate(values), estimate(shuffled)
    assert first.mean == pytest.approx(second.mean) and first.sd == pytest.approx(second.sd)
    assert first.ci == pytest.approx(second.ci)


@given(scores, st.floats(0.5, 100), st.floats(-100, 100))
def test_change_of_unit(values, factor, offset):
    plain, moved = estimate(values), estimate(np.array(values) * factor + offset)
    assert moved.mean == pytest.approx(plain.mean * factor + offset, abs=1e-9)
    assert moved.sd == pytest.approx(plain.sd * factor, abs=1e-9)
    assert moved.ci == pytest.approx(np.array(plain.ci) * factor + offset, abs=1e-9)


@pytest.mark.parametrize("n", [3, 5])
def test_interval_covers_the_truth_as_often_as_it_says(n):
    draws = np.random.default_rng(n).normal(0.9, 0.02, size=(20_000, n))
    low, high = t_interval(draws.mean(axis=1), draws.std(axis=1, ddof=1), n)
    assert np.mean((low < 0.9) & (high > 0.9)) == pytest.approx(0.95, abs=0.006)


def test_sd_factors_are_the_published_ones():
    assert sd_factors(5) == pytest.approx((0.60, 2.87), abs=0.005)
    assert sd_factors(20) == pytest.approx((0.76, 1.46), abs=0.005)


def test_wilson_interval_by_hand():
    found = failure_rate(0, 5)
    z2 = 1.959964**2
    assert found.rate == 0 and found.ci == pytest.approx((0, z2 / (5 + z2)), abs=1e-6)
    assert failure_rate(2, 5).rate == 0.4
    assert failure_rate(0, 0).ci is None


def test_spread_by_hand():
    # Runs score 1/2 and 1/2: no raw spread. Each example varies by 1/2: floor (1/2 + 1/2) / 4.
    found = spread([[1, 0], [0, 1]])
    assert (found.sd, found.sd_floor) == (0.0, 0.5)
    assert found.sd_corrected == 0.0 and found.clipped
    # Runs score 1 and 0, raw variance 1/2; 2/1 * (1/2 - 1/4) = 1/2.
    found = spread([[1, 1], [0, 0]])
    assert found.sd_corrected**2 == pytest.approx(0.5) and not found.clipped


def test_spread_is_the_mean_covariance_of_two_examples():
    matrix = np.random.default_rng(3).random((6, 9)) + np.linspace(0, 1, 6)[:, None]
    covariance = np.cov(matrix, rowvar=False)
    off_diagonal = (covariance.sum() - np.trace(covariance)) / (9 * 8)
    assert spread(matrix).sd_corrected ** 2 == pytest.approx(off_diagonal)


def _runs(rng, studies, runs, examples, true_sd):
    """Correct answers of runs whose true accuracy is normal around 0.8: shape (studies, runs, examples)."""
    accuracy = rng.normal(0.8, true_sd, size=(studies, runs, 1))
    return rng.random((studies, runs, examples)) < accuracy


def test_corrected_spread_is_unbiased():
    studies = _runs(np.random.default_rng(0), 400, 8, 200, true_sd=0.03)
    found = [spread(matrix) for matrix in studies]
    signed = [200 / 199 * (s.sd**2 - s.sd_floor**2) for s in found]  # before clipping, which is biased by design
    assert np.mean(signed) == pytest.approx(0.03**2, rel=0.08)
    assert np.mean([s.sd_floor for s in found]) == pytest.approx((0.8 * 0.2 / 200) ** 0.5, rel=0.03)


def test_corrected_interval_covers_the_truth():
    studies = _runs(np.random.default_rng(1), 400, 10, 200, true_sd=0.03)
    intervals = [spread(matrix).corrected_interval() for matrix in studies]
    assert 0.92 <= np.mean([low <= 0.03 <= high for low, high in intervals]) <= 0.98


def test_too_little_for_a_spread():
    assert spread(np.ones((1, 4))).reason and spread(np.ones((1, 4))).corrected_interval() is None
    one_example = spread([[1.0], [0.0]])
    assert one_example.sd_corrected is None and one_example.corrected_interval() is None and one_example.reason
