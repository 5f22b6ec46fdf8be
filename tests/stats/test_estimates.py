"""Estimates against answers worked out by hand, SciPy's own, and simulations with a known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats import SHARE, estimate, expected_best, interval_of_mean, sd_factors, sd_interval, t_interval
from finetune.stats.multibootstrap import uncertainty_of_mean

scores = st.lists(st.integers(-1000, 1000).map(lambda k: k / 1000), min_size=2, max_size=12)
TWENTY = np.random.default_rng(7).gamma(2, size=20)


def test_estimate_by_hand():
    found = estimate([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.sd, found.median, found.min, found.max) == (3, 2.0, 1.0, 2.0, 1.0, 3.0)
    # t(0.975, 2) = 4.302653 from a printed table; half width 4.302653 / sqrt(3)
    assert found.ci == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    # chi-square(0.975, 2) = 7.377759 and chi-square(0.025, 2) = 0.050636
    assert found.sd_ci == pytest.approx(((2 / 7.377759) ** 0.5, (2 / 0.050636) ** 0.5), rel=1e-4)
    assert found.reason is None and "Student t" in found.method


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_is_scipys(level):
    values = np.random.default_rng(0).normal(size=5)
    expected = stats.t.interval(level, 4, loc=values.mean(), scale=stats.sem(values))
    assert estimate(values, level).ci == pytest.approx(expected)


def test_one_seed_has_no_spread():
    found = estimate([0.9])
    assert (found.n, found.mean, found.sd, found.ci, found.sd_ci) == (1, 0.9, None, None, None)
    assert found.reason == "one seed says nothing about the spread; run at least two"


def test_no_seed_has_nothing():
    found = estimate([])
    assert (found.n, found.mean, found.ci) == (0, None, None) and "no run" in found.reason


@pytest.mark.parametrize("n", [3, 30])
def test_equal_scores_have_exactly_no_spread(n):
    found = estimate([0.1] * n)
    assert (found.sd, found.sd_ci) == (0.0, (0.0, 0.0)) and "not certainty" in found.reason
    assert found.ci == (found.mean, found.mean) and found.prediction is None


def test_the_interval_is_of_one_kind_whatever_the_number_of_seeds():
    for n in (9, 10, 20):
        assert estimate(TWENTY[:n]).ci == pytest.approx(t_interval(TWENTY[:n].mean(), TWENTY[:n].std(ddof=1), n))
        assert "Student t" in estimate(TWENTY[:n]).method


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_next_run_is_predicted_as_by_statsmodels(level):
    """OLS on a constant, get_prediction().conf_int(obs=True) of [1, 2, 3, 5]: -3.3264 and 8.8264 at 95 %."""
    values = [1.0, 2.0, 3.0, 5.0]
    half = stats.t.ppf((1 + level) / 2, 3) * np.std(values, ddof=1) * (1 + 1 / 4) ** 0.5
    assert estimate(values, level).prediction == pytest.approx((2.75 - half, 2.75 + half))
    assert estimate(values).prediction == pytest.approx((-3.3263, 8.8263), abs=1e-3)


def test_four_in_five_predictions_at_80_per_cent_hold():
    draws = np.random.default_rng(4).normal(size=(4000, 6))
    held = [low <= new <= high for *seen, new in draws for low, high in [estimate(seen, 0.8).prediction]]
    assert np.mean(held) == pytest.approx(0.8, abs=0.02)


def right(runs, examples, chance, seed=0):
    return (np.random.default_rng(seed).random((runs, examples)) < chance).astype(float)


def test_with_examples_it_covers_new_examples_too():
    correct = right(5, 80, 0.8)
    found, noise = estimate(correct.mean(axis=1), contributions=correct), uncertainty_of_mean(correct)
    half = noise.half_width(0.95)
    assert found.ci == pytest.approx((found.mean - half, found.mean + half))
    assert found.ci_seeds == estimate(correct.mean(axis=1)).ci and "new examples" in found.method
    told = np.repeat(np.arange(40), 2)
    grouped = estimate(correct.mean(axis=1), contributions=correct, clusters=told)
    assert grouped.ci != found.ci and "groups of examples" in grouped.method


def test_seeds_that_agree_leave_the_examples_noise():
    correct = np.tile(right(1, 80, 0.8), (5, 1))
    found = estimate(correct.mean(axis=1), contributions=correct)
    assert found.ci == pytest.approx(stats.t.interval(0.95, 79, correct[0].mean(), stats.sem(correct[0])))
    assert found.ci_seeds == (found.mean, found.mean) and "not certainty" in found.reason
    assert found.ci == interval_of_mean(correct[0])


def test_a_share_has_four_more_examples_and_stays_a_share():
    """One model: Agresti and Coull's two at either end, then Student's t over examples."""
    correct = right(1, 80, 0.8)[0]
    more = np.concatenate([correct, [0, 1, 0, 1]])
    wanted = stats.t.interval(0.95, 83, more.mean(), stats.sem(more))
    assert interval_of_mean(correct, bounds=SHARE) == pytest.approx(wanted)
    perfect = interval_of_mean(np.ones(80), bounds=SHARE)
    assert perfect[0] == pytest.approx(80 / 84, abs=0.05) and perfect[0] < 0.96 and perfect[1] == 1
    assert estimate([1.0, 1.0, 1.0], contributions=np.ones((3, 80)), bounds=SHARE).ci[0] < 0.97


@pytest.mark.parametrize("scores", [[0.99, 0.9, 0.7], [0.01, 0.3, 0.1]])
def test_no_interval_leaves_what_can_be(scores):
    found = estimate(scores, bounds=SHARE)
    for low, high in (found.ci, found.ci_seeds, found.prediction):
        assert 0 <= low < high <= 1
    free = estimate(scores)
    assert free.ci[0] < 0 or free.ci[1] > 1


def test_overlapping_splits_widen_it_by_nadeau_and_bengios_factor():
    values = [0.8, 0.82, 0.85, 0.81]
    plain, wide = estimate(values), estimate(values, overlap=0.5)
    assert np.diff(wide.ci) == pytest.approx(np.diff(plain.ci) * ((1 / 4 + 0.5) / (1 / 4)) ** 0.5)
    assert wide.sd == plain.sd and "overlapping" in wide.method
    assert np.diff(wide.prediction) > np.diff(plain.prediction)


def test_the_interval_of_an_sd_survives_skew():
    """Bonett's at n = 20 against the chi-square interval, which covers 88 % of such scores, to 1 in 200 exact."""
    draws = np.random.default_rng(3).gamma(4, size=(2000, 20))  # their true SD is 2
    assert np.mean([low <= 2 <= high for low, high in map(sd_interval, draws)]) >= 0.9
    factors = sd_factors(20)
    chi_square = draws.std(axis=1, ddof=1)[:, None] * factors
    assert np.mean((chi_square[:, 0] <= 2) & (chi_square[:, 1] >= 2)) < 0.9


@pytest.mark.parametrize(
    ("values", "squares", "fourths"),
    [
        ([0, 1] * 5, 2.5, 10 / 16),
        ([0] * 9 + [1], 0.9, 1),  # fourth powers are about the mean without the two at each end: 0
    ],
)
def test_the_interval_of_an_sd_is_bonetts(values, squares, fourths):
    c, kurtosis = 10 / (10 - 1.959964), 10 * fourths / squares**2
    error = c * ((kurtosis - 0.7) / 9) ** 0.5
    expected = [(c * squares / 9 * np.exp(sign * 1.959964 * error)) ** 0.5 for sign in (-1, 1)]
    assert sd_interval(values) == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30).filter(lambda values: len(set(values)) > 1))
def test_the_intervals_contain_what_they_are_of(values):
    found = estimate(values)
    assert found.ci[0] < found.mean < found.ci[1]
    assert found.sd_ci[0] < found.sd < found.sd_ci[1]


def test_expected_best_by_hand():
    # Two draws with replacement from 1, 2, 4: the best is 4 with probability 5/9, 2 with 3/9, 1 with 1/9.
    assert expected_best([4.0, 1.0, 2.0])[:2] == pytest.approx([7 / 3, 27 / 9])
    assert expected_best([4.0, 1.0, 2.0], higher_is_better=False)[:2] == pytest.approx([7 / 3, (1 * 5 + 2 * 3 + 4) / 9])
    assert expected_best([]).shape == (0,)


@given(scores)
def test_more_seeds_never_have_a_worse_best(values):
    best = expected_best(values)
    assert best[0] == pytest.approx(np.mean(values)) and best[-1] <= max(values) + 1e-12
    assert (np.diff(best) >= -1e-12).all()


def test_expected_best_is_that_of_resampling():
    draws = np.random.default_rng(0).choice(TWENTY, size=(40_000, 5))
    assert expected_best(TWENTY)[4] == pytest.approx(draws.max(axis=1).mean(), abs=0.02)


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
