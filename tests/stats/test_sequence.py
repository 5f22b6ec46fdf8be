"""The confidence sequence: its closed form, its coverage over all looks, and what a t interval does instead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from finetune.stats import VariantScores, difference_of, estimate, family_of, judge, sequence, verdict
from finetune.stats.sequence import anytime_p_value, anytime_tail, confidence_sequence, e_value, width_factor

SCORES = [0.912, 0.934, 0.921, 0.905, 0.929, 0.918, 0.937]

samples = st.lists(st.floats(-1, 1), min_size=5, max_size=12).filter(lambda values: np.ptp(values) > 1e-3)


def test_the_e_value_is_the_bayes_factor_of_the_t_statistic():
    """By numbers: the noncentral t density of the statistic, averaged over normal effect sizes, over the central one.

    With the right-Haar prior the scale drops out, and the Bayes factor of the scores is that of their t statistic.
    """
    n, mean = len(SCORES), 0.9
    t = (np.mean(SCORES) - mean) / (np.std(SCORES, ddof=1) / np.sqrt(n))
    prior = stats.norm(0, np.sqrt(sequence.PRIOR_VARIANCE))

    def mixed(effect):
        return stats.nct.pdf(t, n - 1, effect * np.sqrt(n)) * prior.pdf(effect)

    wanted = integrate.quad(mixed, -10, 10, points=[0, t / np.sqrt(n)])[0] / stats.t.pdf(t, n - 1)
    assert e_value(SCORES, mean) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_interval_ends_where_the_e_value_reaches_its_bound(level):
    low, high = confidence_sequence(SCORES, level)
    mean = np.mean(SCORES)
    top = optimize.brentq(lambda at: e_value(SCORES, at) - 1 / (1 - level), mean, mean + 1)
    assert high == pytest.approx(top, rel=1e-9)
    assert mean - low == pytest.approx(high - mean)


def test_a_figure_by_hand():
    """n = 5: k = 12.5, r = (12.5 * 400)^(1/5) = 5.4928, t^2 = 4 * 12.5 * 4.4928 / 7.0072 = 32.06."""
    assert width_factor(5) == pytest.approx(5.662, abs=1e-3)
    assert confidence_sequence([-1, 0, 0, 0, 1])[1] == pytest.approx(5.662 * 0.5**0.5 / 5**0.5, abs=1e-3)


def test_the_prior_is_tight_over_the_seeds_that_studies_have():
    def widest(prior):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sequence, "PRIOR_VARIANCE", prior)
            return np.array([width_factor(n) for n in range(5, 31)])

    best = np.min([widest(prior) for prior in np.geomspace(0.2, 20, 120)], axis=0)
    regret = {prior: (widest(prior) / best).max() for prior in (1.0, 1.8, sequence.PRIOR_VARIANCE, 2.9, 5.0)}
    assert min(regret, key=regret.get) == sequence.PRIOR_VARIANCE
    assert regret[sequence.PRIOR_VARIANCE] < 1.066


@pytest.fixture(scope="module")
def looks():
    """Many studies of 30 seeds with true mean 0 and SD 1: (mean, SD, whether it is covered) after each seed."""
    scores = np.random.default_rng(3).normal(size=(20_000, 30))
    n = np.arange(1, 31)
    mean = scores.cumsum(axis=1) / n
    sd = np.sqrt(np.maximum(((scores**2).cumsum(axis=1) - n * mean**2) / np.maximum(n - 1, 1), 0))
    return mean, sd


def half_widths(sd, factor):
    n = np.arange(2, sd.shape[1] + 1)
    return np.array([factor(number) for number in n]) * sd[:, 1:] / np.sqrt(n)


def t_factor(n):
    return stats.t.ppf(0.975, n - 1)


def at_the_stop(mean, half, width, at_least):
    """Coverage where the interval was first no wider than ``width``, or at the last seed; and the seeds it took."""
    narrow = 2 * half <= width
    narrow[:, : at_least - 2] = False
    narrow[:, -1] = True
    stop = narrow.argmax(axis=1)
    rows = np.arange(len(mean))
    return np.mean(np.abs(mean[rows, stop + 1]) < half[rows, stop]), np.mean(stop + 2)


def test_simulated_looks_are_those_of_the_function(looks):
    mean, sd = looks
    scores = np.random.default_rng(3).normal(size=(20_000, 30))[7, :12]
    low, high = confidence_sequence(scores)
    assert (low, high) == pytest.approx((mean[7, 11] - (high - low) / 2, mean[7, 11] + (high - low) / 2))
    assert (high - low) / 2 == pytest.approx(half_widths(sd, width_factor)[7, 10])


def test_the_truth_is_in_every_interval_at_once(looks):
    mean, sd = looks
    sequences = np.abs(mean[:, 1:]) < half_widths(sd, width_factor)
    t = np.abs(mean[:, 1:]) < half_widths(sd, t_factor)
    assert sequences.all(axis=1).mean() > 0.97  # 95 % over endless looks; 30 of them use up a part of the 5 %
    assert t[:, 3:].all(axis=1).mean() < 0.80, "a t interval is right at one look, not at all of them"


@pytest.mark.parametrize("at_least, t_covers_at_most", [(2, 0.89), (5, 0.93)])
def test_stopping_when_it_is_narrow_keeps_the_sequences_promise_and_not_that_of_a_t_interval(
    looks, at_least, t_covers_at_most
):
    mean, sd = looks
    covered, seeds = at_the_stop(mean, half_widths(sd, t_factor), 1.0, at_least)
    assert covered < t_covers_at_most and 10 < seeds < 20
    for width in (1.2, 1.5, 2.0, 3.0):
        covered, seeds = at_the_stop(mean, half_widths(sd, width_factor), width, at_least)
        assert covered >= 0.95 and at_least < seeds < 28


@given(samples, st.floats(-5, 5), st.floats(0.1, 100))
def test_it_moves_and_grows_with_the_unit(scores, shift, scale):
    low, high = confidence_sequence(scores)
    moved = confidence_sequence([shift + scale * score for score in scores])
    assert moved == pytest.approx((shift + scale * low, shift + scale * high), rel=1e-6, abs=1e-6)


@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(scores, random):
    shuffled = scores[:]
    random.shuffle(shuffled)
    assert confidence_sequence(shuffled) == pytest.approx(confidence_sequence(scores), rel=1e-9, abs=1e-12)


@given(samples)
def test_it_is_wider_than_a_t_interval(scores):
    low, high = confidence_sequence(scores)
    half = t_factor(len(scores)) * np.std(scores, ddof=1) / np.sqrt(len(scores))
    assert high - low > 2 * half


@given(samples, st.floats(-2, 2))
def test_the_p_value_and_the_interval_agree(scores, mean):
    low, high = confidence_sequence(scores)
    p = anytime_p_value(scores, mean)
    assert 0 < p <= 1
    assert (p < 0.05) == (not low <= mean <= high) or p == pytest.approx(0.05)


@given(samples, st.floats(-2, 2))
def test_the_p_value_of_a_statistic_is_that_of_its_scores(scores, mean):
    n = len(scores)
    t = (np.mean(scores) - mean) / (np.std(scores, ddof=1) / np.sqrt(n))
    assert anytime_tail(t, n) == pytest.approx(anytime_p_value(scores, mean))


@pytest.mark.parametrize(
    "scores, why",
    [
        ([], "no run has this score"),
        ([0.9], "one seed says nothing"),
        ([0.9, 0.8], "so few seeds give no interval"),
        ([0.9, 0.8, 0.85], "so few seeds give no interval"),
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], "every seed has the same score"),
    ],
)
def test_without_an_interval_it_says_why(scores, why):
    found = estimate(scores, sequential=True)
    assert found.ci is None and why in found.reason
    assert (found.n, found.mean) == (len(scores), estimate(scores).mean)


def test_an_estimate_says_its_method():
    found = estimate(SCORES, sequential=True)
    assert found.ci == pytest.approx(confidence_sequence(SCORES)) and found.reason is None
    assert "confidence sequence" in found.method and "95%" in found.method
    assert (found.mean, found.sd) == (estimate(SCORES).mean, estimate(SCORES).sd)
    assert found.prediction is None, "one more run's is not a sequence's"


def test_equals_are_seldom_told_apart_however_often_one_looks():
    """With a t test at each of seeds 3 to 20, about a fifth of such studies would tell them apart."""
    rng, told = np.random.default_rng(8), {False: 0, True: 0}
    for _ in range(300):
        sides = rng.normal(0.8, 0.02, (2, 20))
        for sequential in told:
            family = family_of(1, sequential=sequential)
            for n in range(3, 21):
                pair = difference_of(*(VariantScores.of(dict(enumerate(side[:n]))) for side in sides), rng)
                if verdict(judge([pair], family)[0]) != "undecided":
                    told[sequential] += 1
                    break
    assert told[True] <= 0.06 * 300 < 0.13 * 300 < told[False]


def test_equal_scores_are_no_evidence():
    assert e_value([0.3] * 6, 0.5) == 1 and anytime_p_value([0.3] * 6, 0.5) is None
    assert confidence_sequence([0.1 + 0.2, 0.3, 0.3, 0.3, 0.3]) is None, "different only by rounding"
