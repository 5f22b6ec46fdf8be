"""The gain of a combination over the mean of its runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats import gain

rows = st.lists(st.lists(st.integers(0, 1), min_size=6, max_size=6), min_size=1, max_size=4)


def test_by_hand():
    """Differences 1/2, 0, 1/2, 1: mean 1/2, SD sqrt(1/6); t(0.975, 3) = 3.182446 from a printed table."""
    found = gain([1, 1, 1, 1], [[1, 1, 0, 0], [0, 1, 1, 0]])
    half = 3.182446 * (1 / 6) ** 0.5 / 2
    assert found.mean == 0.5 and found.ci == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)


def test_it_is_a_paired_t_interval():
    rng = np.random.default_rng(0)
    own, seeds = rng.random(50), rng.random((3, 50))
    expected = stats.ttest_rel(own, seeds.mean(axis=0)).confidence_interval(0.9)
    assert gain(own, seeds, level=0.9).ci == pytest.approx(tuple(expected))


@given(rows)
def test_what_says_the_same_as_its_only_run_gains_nothing(seeds):
    found = gain(seeds[0], [seeds[0]] * len(seeds))
    assert (found.mean, found.ci) == (0.0, (0.0, 0.0))


@given(rows, st.randoms())
def test_order_of_seeds_does_not_matter(seeds, random):
    own = [1] * 6
    assert gain(own, seeds).mean == pytest.approx(gain(own, random.sample(seeds, len(seeds))).mean)


def test_one_example_has_no_interval():
    found = gain([1.0], [[0.0]])
    assert (found.mean, found.ci) == (1.0, None) and "one example" in found.reason


def test_examples_that_belong_together_count_together():
    """statsmodels: OLS of the differences on a constant with cov_type="cluster" has 0.86767578 for the variance of
    the mean of these, times 4/3 for four clusters; t(0.975, 3) = 3.182446."""
    own, clusters = [1.0, 0, 2, 5, 3, 3, 8, 1], [0, 0, 1, 1, 1, 2, 2, 3]
    found = gain(own, [[0.0] * 8], clusters=clusters)
    half = 3.182446 * (0.86767578 * 4 / 3) ** 0.5
    assert found.mean == np.mean(own) and found.ci == pytest.approx((found.mean - half, found.mean + half), abs=1e-5)


def test_copies_of_examples_say_nothing_new():
    rng = np.random.default_rng(1)
    own, seeds = rng.random(20), rng.random((3, 20))
    copied = gain(np.repeat(own, 4), np.repeat(seeds, 4, axis=1), clusters=np.repeat(np.arange(20), 4))
    assert copied.ci == pytest.approx(gain(own, seeds).ci)


def test_one_cluster_has_no_interval():
    found = gain([1.0, 0.0], [[0.0, 0.0]], clusters=[0, 0])
    assert (found.mean, found.ci) == (0.5, None) and "one group" in found.reason


def test_intervals_of_clusters_cover_no_gain_in_95_of_100():
    """Thirty texts with five questions each that gain and lose together: without groups, 62 % are covered."""
    rng, texts, covered = np.random.default_rng(2), np.repeat(np.arange(30), 5), {True: [], False: []}
    for _ in range(1000):
        own = rng.normal(0, 1, 30)[texts] + rng.normal(0, 0.5, 150)
        seeds = np.zeros((2, 150))
        for told in covered:
            low, high = gain(own, seeds, clusters=texts if told else None).ci
            covered[told].append(low <= 0 <= high)
    assert 0.93 <= np.mean(covered[True]) <= 0.97 and np.mean(covered[False]) < 0.75
