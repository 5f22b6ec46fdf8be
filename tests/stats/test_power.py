"""Seeds and examples needed: published sizes, simulated power, and what follows from the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from finetune.stats import spread
from finetune.stats.families import AllPairs, Part, Sequential, Several
from finetune.stats.leading import Leader
from finetune.stats.multibootstrap import uncertainty_of_mean
from finetune.stats.power import (
    Between,
    Noise,
    best_power,
    detectable,
    examples_needed,
    power,
    seeds_needed,
)
from finetune.stats.sequence import anytime_p_value

sds = st.floats(0.1, 10)


@pytest.mark.parametrize("effect, seeds", [(0.2, 394), (0.5, 64), (0.8, 26), (1, 17), (1.5, 9), (2, 6), (3, 4)])
def test_unpaired_sizes_are_those_of_the_tables(effect, seeds):
    """Cohen 1988, table 2.4.1, as G*Power and statsmodels compute it."""
    assert seeds_needed(effect, Noise.of_sd(1), paired=False) == seeds


@pytest.mark.parametrize("effect, pairs", [(0.2, 199), (0.5, 34), (0.8, 15), (1, 10)])
def test_paired_sizes_are_those_of_the_tables(effect, pairs):
    assert seeds_needed(effect, Noise(1)) == pairs


@pytest.mark.parametrize("effect, seeds, alpha", [(1, 17, 0.05), (0.4, 5, 0.05), (2.5, 6, 0.005), (0.1, 300, 0.01)])
def test_power_is_that_of_statsmodels(effect, seeds, alpha):
    unpaired = TTestIndPower().power(effect, seeds, alpha)
    assert power(effect, Noise.of_sd(1), seeds, paired=False, alpha=alpha) == pytest.approx(unpaired, abs=1e-6)
    assert power(effect, Noise(1), seeds, alpha=alpha) == pytest.approx(TTestPower().power(effect, seeds, alpha))


def test_power_is_what_a_t_test_reaches():
    rng = np.random.default_rng(0)
    left, right = rng.normal(1.2, 1, (20_000, 10)), rng.normal(0, 1, (20_000, 10))
    paired = np.mean(stats.ttest_1samp(left - right, 0, axis=1).pvalue < 0.05)
    apart = np.mean(stats.ttest_ind(left, right, axis=1).pvalue < 0.05)
    assert power(1.2, Noise.of_sd(1), 10) == pytest.approx(paired, abs=0.01)
    assert power(1.2, Noise.of_sd(1), 10, paired=False) == pytest.approx(apart, abs=0.01)
    assert power(0, Noise(1), 10) == pytest.approx(0.05), "without a difference it is the error"


@pytest.mark.parametrize("runs, examples", [(4, 60), (10, 40), (20, 15)])
def test_with_noise_of_examples_too(runs, examples):
    """Against the test that decides, on a crossed design."""
    noise, rng, times = Noise(0.5, 2.0, 1.5), np.random.default_rng(1), 2000
    seen = []
    for _ in range(times):
        values = 1.0 + rng.normal(0, noise.seeds, (runs, 1)) + rng.normal(0, noise.examples, examples)
        values = values + rng.normal(0, noise.both, (runs, examples))
        seen.append(uncertainty_of_mean(values).p_value(values.mean()) < 0.05)
    assert power(1.0, noise, runs, examples) == pytest.approx(np.mean(seen), abs=0.03)


def test_judged_with_others_less_is_seen():
    """By its own test the leader needs less than any two of many, and than by Bonferroni's share of all pairs."""
    noise = Noise.of_sd(1)
    alone, leader, pair = (seeds_needed(0.5, noise, family=each) for each in (Several(), Leader(6), AllPairs(6)))
    assert alone < leader < seeds_needed(0.5, noise, alpha=0.05 / 15) < pair
    assert power(0.5, noise, 20, family=Several(4)) == pytest.approx(power(0.5, noise, 20, alpha=1 - 0.95**0.25))
    assert power(0.5, noise, 20, family=AllPairs(2)) == power(0.5, noise, 20)


@pytest.mark.parametrize("seeds", [2, 4, 6, 12])
def test_a_sequence_sees_what_its_e_values_decide(seeds):
    scores = np.random.default_rng(2).normal(2.0, 1, (2000, seeds))
    found, seen = power(2.0, Noise(1), seeds, family=Sequential(3)), [anytime_p_value(row) < 0.05 / 3 for row in scores]
    assert found == pytest.approx(np.mean(seen), abs=0.03) and (found == 0) == (seeds < 5)
    assert (detectable(Noise(1), seeds, family=Sequential(3)) == math.inf) == (seeds < 5), "so few have no bound"


@pytest.mark.parametrize("family", [AllPairs(3), Part(AllPairs(6), 0.6)])
@pytest.mark.parametrize("df", [7, 29, 5000])
def test_a_tail_between_two_degrees_is_close(family, df):
    for t in (1.5, 3.0, 4.5):
        assert Between(family).tail(t, df) == pytest.approx(family.tail(t, df), rel=0.03)
    assert Between(family).tail(3.0, 10) == family.tail(3.0, 10)


def test_a_test_set_can_be_too_small_for_any_number_of_seeds():
    noise = Noise.of_sd(0.01, examples=0.3)  # examples of which 9 % differ, one point of SD
    assert seeds_needed(0.01, noise, examples=1000) is None
    assert best_power(0.01, noise, 1000) == pytest.approx(0.18, abs=0.01)
    least = examples_needed(0.01, noise)
    # By hand, on the normal distribution: (1.960 + 0.842)^2 * 0.09 / 0.01^2 = 7064.
    assert least == pytest.approx(7064, abs=5)
    assert seeds_needed(0.01, noise, examples=least + 500) > 100
    assert seeds_needed(0.01, noise, examples=100 * least) == seeds_needed(0.01, Noise.of_sd(0.01))


def test_few_seeds_can_be_too_few_for_any_number_of_examples():
    noise = Noise.of_sd(0.01, examples=0.3)
    assert examples_needed(0.01, noise, seeds=5) is None
    enough = examples_needed(0.01, noise, seeds=30)
    assert power(0.01, noise, 30, enough) >= 0.8 > power(0.01, noise, 30, enough - 1)


@given(sds, st.floats(0, 10), st.integers(3, 60), st.integers(10, 5000), st.booleans())
def test_what_is_detectable_is_seen_with_the_power_asked_for(seeds_sd, example_sd, seeds, examples, paired):
    noise = Noise(seeds_sd, example_sd)
    smallest = detectable(noise, seeds, examples, paired)
    assert power(smallest, noise, seeds, examples, paired) == pytest.approx(0.8, abs=1e-3)


@given(st.floats(0.3, 5), sds, st.booleans(), st.sampled_from([0.05, 0.01, 0.005]))
def test_the_fewest_seeds_are_enough_and_one_less_is_not(difference, sd, paired, alpha):
    assume(sd / difference < 20)
    noise = Noise.of_sd(sd)
    seeds = seeds_needed(difference, noise, paired=paired, alpha=alpha)
    assert power(difference, noise, seeds, paired=paired, alpha=alpha) >= 0.8
    assert seeds == 2 or power(difference, noise, seeds - 1, paired=paired, alpha=alpha) < 0.8


@given(sds, st.floats(0, 5), st.floats(0.5, 3), st.floats(0.01, 100))
def test_the_unit_does_not_matter(seeds_sd, example_sd, difference, scale):
    here = power(difference, Noise(seeds_sd, example_sd), 7, 300)
    there = power(scale * difference, Noise(scale * seeds_sd, scale * example_sd), 7, 300)
    assert here == pytest.approx(there, abs=1e-9)


def test_a_pilots_noise_by_hand():
    """Means of rows -1, 1 and of columns -2, 0, 2; what is left: +-1 in the outer columns."""
    rest = np.array([[1, 0, -1], [-1, 0, 1]])
    noise = Noise.of_differences(np.array([[-1.0], [1.0]]) + np.array([[-2.0, 0.0, 2.0]]) + rest)
    assert noise.both**2 == pytest.approx(4 / 2)  # over (2 - 1)(3 - 1) degrees of freedom
    assert noise.seeds**2 == pytest.approx(2 - 2 / 3)
    assert noise.examples**2 == pytest.approx(4 - 2 / 2)
    assert noise.seed_part(2, 3) + noise.example_part(3) == pytest.approx((2 - 2 / 3 + 2 / 3) / 2 + 3 / 3)


def test_a_pilots_seed_part_is_the_corrected_sd():
    rng = np.random.default_rng(5)
    differences = rng.integers(-1, 2, (6, 80)) + rng.normal(0, 0.2, (6, 1))
    noise, found = Noise.of_differences(differences), spread(differences)
    assert noise.seeds == pytest.approx(found.sd_corrected)
    assert noise.seed_part(1, 80) == pytest.approx(found.sd**2), "on as many examples, what the pilot saw"


def test_a_pilots_noise_is_right_on_average():
    rng, truth = np.random.default_rng(6), Noise(0.5, 2.0, 3.0)
    found = []
    for _ in range(400):
        values = rng.normal(0, truth.seeds, (8, 1)) + rng.normal(0, truth.examples, (1, 60))
        noise = Noise.of_differences(values + rng.normal(0, truth.both, (8, 60)))
        found.append([noise.seeds**2, noise.examples**2, noise.both**2])
    wanted = [truth.seeds**2, truth.examples**2, truth.both**2]
    assert np.mean(found, axis=0) == pytest.approx(wanted, rel=0.08)


def test_no_noise_needs_no_more_than_two_seeds():
    assert seeds_needed(0.01, Noise(0)) == 2 and detectable(Noise(0), 5) == 0
    assert power(0.01, Noise(0), 2) == 1 and power(0, Noise(0), 2) == 0.05


@pytest.mark.parametrize("seeds", [2, 3, 10, 400])
def test_large_effects_and_strict_levels_have_a_power(seeds):
    found = [power(size, Noise(1), seeds, alpha=1e-6) for size in (0.1, 1, 5, 20, 100)]
    assert all(0 <= chance <= 1 for chance in found) and found == sorted(found)


def test_what_is_out_of_reach_has_no_number():
    assert seeds_needed(1e-4, Noise(1)) is None
    assert best_power(1e-4, Noise(1), math.inf) == 1, "it is the seeds, not the examples, that do not suffice"
    assert examples_needed(1e-6, Noise(0, 1)) is None


def test_more_comparisons_need_more_seeds():
    needed = [seeds_needed(1, Noise.of_sd(1), family=Several(count)) for count in (1, 3, 10)]
    assert needed == sorted(needed) and needed[0] < needed[-1]
