"""Failure rates against tables and SciPy, and the expected score by hand and by what it must always be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats import at_chance, estimate, expected, failure_rate, holds_in_all, no_better, told_apart
from finetune.stats.failures import rate_limits

works = st.lists(st.integers(60, 99).map(lambda k: k / 100), min_size=2, max_size=8)
fails = st.lists(st.one_of(st.none(), st.integers(30, 55).map(lambda k: k / 100)), max_size=4)

# SetFit's published scores on emotion with 64 examples a class, ten splits of the data; in percent.
ROBERTA = [75.3, 71.05, 69.25, 72.85, 71.35, 13.75, 69.35, 68.05, 72.3, 66.55]
SETFIT = [76.65, 74.9, 74.65, 78.0, 78.1, 76.65, 76.95, 76.0, 76.35, 73.75]


def test_wilson_interval_by_hand():
    found = failure_rate(0, 5)
    z2 = 1.959964**2
    assert found.rate == 0 and found.ci == pytest.approx((0, z2 / (5 + z2)), abs=1e-6)
    assert failure_rate(2, 5).rate == 0.4
    assert failure_rate(0, 0).ci is None and failure_rate(0, 0).limit is None


@pytest.mark.parametrize(("n", "limit"), [(5, 0.451), (10, 0.259), (20, 0.139)])
def test_the_limit_where_none_failed(n, limit):
    """1 - 0.05^(1/n): of five runs none of which failed up to 45 % could, of twenty up to 14 %."""
    found = failure_rate(0, n)
    assert found.limit == pytest.approx(1 - 0.05 ** (1 / n)) == pytest.approx(limit, abs=5e-4)
    assert found.least == 0 and failure_rate(n, n).limit == 1


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.975]))
def test_the_limits_are_scipys_exact_ones(counts, level):
    low, high = rate_limits(*counts, level)
    exact = stats.binomtest(*counts)
    assert low == pytest.approx(exact.proportion_ci(2 * level - 1, "exact").low, abs=1e-9)
    assert high == pytest.approx(exact.proportion_ci(2 * level - 1, "exact").high, abs=1e-9)


def test_two_rates_are_told_apart_by_boschloos_test():
    assert told_apart(failure_rate(0, 5), failure_rate(0, 5)) == 1
    assert told_apart(failure_rate(0, 5), failure_rate(0, 0)) is None
    wanted = stats.boschloo_exact([[1, 7], [9, 3]]).pvalue
    assert told_apart(failure_rate(1, 10), failure_rate(7, 10)) == pytest.approx(wanted)
    assert wanted < stats.fisher_exact([[1, 7], [9, 3]]).pvalue


def test_a_run_at_chance_needs_a_margin():
    """Of runs that guess on 300 examples with two labels, half land above 50 %, and one in twenty above 54.7 %."""
    assert at_chance(0.5, 0.5, 300) and at_chance(0.54, 0.5, 300) and not at_chance(0.55, 0.5, 300)
    guesses = np.random.default_rng(0).binomial(300, 0.5, 4000) / 300
    assert np.mean(guesses > 0.5) > 0.45
    assert 0.95 <= np.mean([at_chance(guess, 0.5, 300) for guess in guesses]) < 0.975
    assert at_chance(0.9, 0.9, 50) and at_chance(0.96, 0.9, 50) and not at_chance(1.0, 0.9, 50)


def test_the_expected_score_by_hand():
    """Three of four runs score 80 on average, one failed with 20: 65. Nothing is known of one without a score."""
    found = expected([79.0, 80.0, 81.0], [20.0], 50.0)
    assert (found.mean, found.failing) == (65.0, 20.0) and found.ci[0] < 65 < found.ci[1]
    assert expected([79.0, 80.0, 81.0], [None], 50.0).mean == 72.5
    unknown = expected([79.0, 80.0, 81.0], [None], None)
    assert unknown.mean is None and "no score" in unknown.reason


def test_its_interval_joins_that_of_the_mean_and_that_of_the_rate():
    scores = [0.80, 0.82, 0.84]
    low, high = estimate(scores, 0.975).ci
    rate = rate_limits(0, 3, 0.9875)[1]
    found = expected(scores, [], 0.5)
    assert found.ci == pytest.approx((min(low, (1 - rate) * low + rate * 0.5), high))
    assert found.failing == 0.5 and found.reason is None


@pytest.mark.parametrize(
    ("scores", "failed", "floor", "why"),
    [
        ([], [], 0.5, "no run has ended"),
        ([], [0.4, 0.5], 0.5, "no run worked"),
        ([0.8], [], 0.5, "nothing about the spread"),
        ([0.8, 0.9], [], None, "what a failing run would score"),
    ],
)
def test_without_an_interval_it_says_why(scores, failed, floor, why):
    found = expected(scores, failed, floor)
    assert found.ci is None and why in found.reason


@given(works, fails, st.integers(0, 50).map(lambda k: k / 100))
def test_it_lies_between_all_that_may_be(scores, failed, floor):
    found = expected(scores, failed, floor, bounds=(0, 1))
    known = [floor if score is None else score for score in failed]
    assert found.mean == pytest.approx(np.mean([*scores, *known]))
    assert found.ci is None or 0 <= found.ci[0] <= found.mean + 1e-12 <= found.ci[1] + 2e-12 <= 1 + 2e-12


def test_overlap_and_a_sequence_widen_it():
    scores = [0.80, 0.82, 0.84, 0.83, 0.81]
    plain = expected(scores, [], 0.5).ci
    for other in (expected(scores, [], 0.5, overlap=0.4).ci, expected(scores, [], 0.5, sequential=True).ci):
        assert other[0] < plain[0] and other[1] > plain[1]


def test_it_holds_in_all_where_failures_cannot_cost_the_lead():
    """Of twenty runs none failed, so that up to 13.9 % could, which cost 0.139 * 0.3 = 4.2 points."""
    none = failure_rate(0, 20)
    assert holds_in_all((0.05, 0.09), 0.8, [], 0.5, none)
    assert not holds_in_all((0.04, 0.09), 0.8, [], 0.5, none)
    assert not holds_in_all((0.05, 0.09), 0.8, [0.3], 0.5, none)
    assert not holds_in_all((0.05, 0.09), 0.8, [None], None, none)
    assert not holds_in_all((0.05, 0.09), 0.8, [], 0.5, failure_rate(0, 0))
    assert holds_in_all((-0.09, -0.05), 0.2, [], 0.5, none, higher_is_better=False)
    assert not holds_in_all((-0.09, -0.05), 0.2, [0.9], 0.5, none, higher_is_better=False)


def test_numbers_are_told_from_the_mean_by_a_paired_test():
    """Student's one-sided test, against SciPy's; and how often it takes noise for learning."""
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.1, 0.3, 1.0):
        theirs = rng.chisquare(1, 50)
        own = np.abs(theirs - shift + 0.3 * rng.normal(size=50))
        p = stats.ttest_rel(own, theirs, alternative="less").pvalue
        assert no_better(own, theirs, higher_is_better=False) is bool(p > 0.05)
        assert no_better(-own, -theirs) is bool(p > 0.05)
    taken = [not no_better(rng.normal(size=40), rng.normal(size=40), False) for _ in range(2000)]
    assert np.mean(taken) == pytest.approx(0.05, abs=0.015)


def test_what_is_right_or_wrong_is_told_by_counting():
    right, same = np.arange(300) < 110, np.arange(300) < 100
    assert no_better(right, same) is at_chance(110 / 300, 1 / 3, 300) is True
    assert no_better(np.arange(300) < 120, same) is False


def test_where_nothing_can_be_shown_nothing_is():
    for own, theirs in (([1.5], [9.0]), ([np.nan, 0.5], [2.0, 3.0]), ([2.5, 2.5], [2.5, 2.5])):
        assert no_better(own, theirs, higher_is_better=False)
    assert not no_better([1.5, 1.5], [2.5, 2.5], higher_is_better=False)


def test_a_published_collapse_is_a_failure_and_not_a_part_of_the_mean():
    """RoBERTa's split of 13.75 % is at chance on 2,000 examples with six labels, the commonest of them 34.75 %."""
    failed = [score for score in ROBERTA if at_chance(score / 100, 0.3475, 2000)]
    assert failed == [13.75] and not [score for score in SETFIT if at_chance(score / 100, 0.3475, 2000)]
    scores = [score for score in ROBERTA if score not in failed]
    rate, mean = failure_rate(len(failed), len(ROBERTA)), estimate(scores)
    assert rate.limit == pytest.approx(0.394, abs=1e-3)
    assert mean.mean == pytest.approx(70.67, abs=5e-3) and mean.ci == pytest.approx(
        stats.t.interval(0.95, 8, np.mean(scores), stats.sem(scores))
    )
    all_runs = expected(scores, failed, 34.75)
    assert all_runs.mean == pytest.approx(np.mean(ROBERTA)) and all_runs.ci[0] < mean.ci[0]
