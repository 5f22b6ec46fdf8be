"""Comparisons against SciPy, Holm's procedure by hand, and properties that any comparison must have."""

import time
import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from finetune.stats import VariantScores, compare, holm, verdict
from finetune.stats.multibootstrap import uncertainty

value = st.integers(0, 200).map(lambda k: k / 200)
pairs = st.lists(st.tuples(value, value), min_size=2, max_size=8)


def by_seed(values, first=1):
    return VariantScores.of({seed: float(score) for seed, score in enumerate(values, start=first)})


def answered(matrix, first=1):
    """A side from what each run (row) made of each example."""
    rows = np.asarray(matrix, dtype=float)
    scores = {seed: float(row.mean()) for seed, row in enumerate(rows, start=first)}
    return VariantScores.of(scores, rows)


def rng():
    return np.random.default_rng(0)


def test_without_examples_it_is_scipys_paired_test():
    draws = np.random.default_rng(0)
    left, right = draws.normal(0.9, 0.02, 5), draws.normal(0.88, 0.02, 5)
    found, expected = compare(by_seed(left), by_seed(right), rng()), stats.ttest_rel(left, right)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.ci == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.difference == pytest.approx((left - right).mean())
    assert (found.n, found.pairs, found.examples) == (5, 5, None)
    assert "Student's t" in found.method and "examples is not covered" in found.method


def test_without_pairs_it_is_scipys_welch_test():
    draws = np.random.default_rng(0)
    left, right = draws.normal(0.9, 0.02, 5), draws.normal(0.88, 0.05, 8)
    found = compare(by_seed(left), by_seed(right, first=10), rng())
    expected = stats.ttest_ind(left, right, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.n, found.pairs) == (5, 0) and "unpaired" in found.method


def test_against_a_fixed_score_it_is_scipys_one_sample_test():
    left = np.random.default_rng(1).normal(0.9, 0.02, 4)
    found, expected = compare(by_seed(left), VariantScores.fixed(0.87), rng()), stats.ttest_1samp(left, 0.87)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.ci == pytest.approx(np.array(expected.confidence_interval(0.95)) - 0.87)
    assert found.sd_ratio is None and found.p_spread is None


def test_with_examples_it_speaks_of_new_examples_too():
    draws = np.random.default_rng(2)
    left, right = (draws.random((5, 50)) < 0.8).astype(float), (draws.random((5, 50)) < 0.7).astype(float)
    found, noise = compare(answered(left), answered(right), rng()), uncertainty([left - right])
    assert (found.examples, found.se) == (50, pytest.approx(noise.se))
    assert found.p_value == pytest.approx(noise.p_value(left.mean() - right.mean()))
    assert "multi-bootstrap over seeds and examples" in found.method
    unpaired = compare(answered(left), answered(right, first=6), rng())
    assert unpaired.se == pytest.approx(uncertainty([left, -right]).se)
    base = compare(answered(left), VariantScores.fixed(right[0].mean(), right[0]), rng())
    assert base.se == pytest.approx(uncertainty([left - right[0]]).se) and base.n == 5


def test_clusters_count_once():
    """The same examples three times over are no more examples."""
    draws = np.random.default_rng(3)
    left, right = draws.random((2, 5, 30))
    once = compare(answered(left), answered(right), rng())
    thrice = [answered(np.repeat(side, 3, axis=1)) for side in (left, right)]
    found = compare(*thrice, rng(), clusters=np.repeat(np.arange(30), 3))
    assert (found.groups, found.examples) == (30, 90) and "groups of examples" in found.method
    assert found.p_value == pytest.approx(once.p_value)
    assert compare(*thrice, rng()).p_value < found.p_value
    one = compare(*thrice, rng(), clusters=np.zeros(90, dtype=int))
    assert one.examples is None and "Student's t" in one.method


def test_pairs_are_the_common_seeds_wherever_they_stand():
    left = VariantScores.of({1: 0.5, 2: 0.7, 3: 9.0}, [[0.4, 0.6], [0.7, 0.7], [9, 9]])
    right = VariantScores.of({2: 0.5, 1: 0.4, 4: -9.0}, [[0.5, 0.5], [0.4, 0.4], [-9, -9]])
    found = compare(left, right, rng())
    assert (found.n, found.pairs) == (2, 2) and found.difference == pytest.approx(0.15)
    assert found.se == pytest.approx(uncertainty([[[0.0, 0.2], [0.2, 0.2]]]).se)


def test_few_common_seeds_among_many_are_not_paired():
    found = compare(by_seed([0.5, 0.6, 0.7, 0.8]), by_seed([0.1, 0.2, 0.4, 0.4], first=4), rng())
    assert found.pairs == 0 and found.difference == pytest.approx(0.65 - 0.275)


def test_two_single_models_get_mcnemars_test_and_no_verdict():
    left, right = [1] * 23 + [0] * 49, [1] * 20 + [0] * 3 + [1] * 9 + [0] * 40
    found = compare(answered([left]), answered([right]), rng())
    assert found.difference == pytest.approx(-6 / 72) and found.p_mcnemar == pytest.approx(0.14599609375)
    assert found.p_value is None and found.ci is None and "one seed" in found.reason
    assert compare(answered([left, left]), answered([right, right]), rng()).p_mcnemar is None


def test_equal_differences_are_not_certainty():
    # 0.93 - 0.90 and 0.94 - 0.91 differ by rounding alone, and would give p = 1e-15.
    found = compare(by_seed([0.93, 0.94]), by_seed([0.90, 0.91]), rng())
    assert found.p_value is None and found.ci is None and "equal" in found.reason
    assert verdict(found, None) == "undecided"


def test_nothing_scored():
    assert compare(by_seed([]), VariantScores.fixed(0.5), rng()).reason == "a side has no run with this score"
    assert compare(by_seed([0.5, 0.6]), by_seed([]), rng()).difference is None


def test_the_exact_p_value_stands_beside():
    found = compare(by_seed([0.9, 0.91, 0.92, 0.93, 0.95]), by_seed([0.8, 0.82, 0.81, 0.8, 0.83]), rng())
    assert found.p_permutation == found.p_permutation_smallest == 0.0625 > found.p_value
    apart = compare(by_seed([4, 5, 6]), by_seed([1, 2, 3], first=7), rng())
    assert apart.p_permutation == pytest.approx(2 / 20) == apart.p_permutation_smallest


def test_detectable_is_what_80_percent_of_such_studies_see():
    """statsmodels: TTestPower().solve_power(nobs=6, power=.8, alpha=.05) is 1.4345451 SDs of the difference."""
    left = np.array([0.3, 0.1, 0.5, 0.2, 0.9, 0.4])
    found = compare(by_seed(left), by_seed([0.0] * 6), rng())
    assert found.detectable == pytest.approx(1.4345451 * left.std(ddof=1))


def test_holm_by_hand():
    # Sorted: .005*4, .01*3, .03*2, .04*1 -> .02, .03, .06, and .04 is raised to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_holm_is_statsmodels():
    """multipletests([.01, .04, .03, .005, .2], method="holm")[1]"""
    assert holm([0.01, 0.04, 0.03, 0.005, 0.2]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    for raw, new in zip(p_values, adjusted, strict=True):
        assert raw <= new <= min(1.0, raw * len(p_values)) or new == pytest.approx(raw)
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_holm_keeps_the_family_error_rate():
    p_values = np.random.default_rng(0).random((4000, 6))
    wrong = np.mean([min(holm(row)) < 0.05 for row in p_values.tolist()])
    assert wrong == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("higher", [True, False])
def test_verdict_knows_which_way_is_better(higher):
    found = compare(by_seed([0.90, 0.91, 0.92]), by_seed([0.50, 0.52, 0.51]), rng(), higher_is_better=higher)
    assert found.p_value < 0.05
    assert verdict(found, found.p_value, higher) == ("better" if higher else "worse")
    assert verdict(found, 0.2, higher) == "undecided"
    assert found.probability_of_improvement == (1.0 if higher else 0.0)


def test_interval_containing_zero_is_undecided_whatever_p_says():
    found = compare(by_seed([0.5, 0.6, 0.4]), by_seed([0.5, 0.4, 0.6]), rng())
    assert verdict(found, 0.001) == "undecided"


@settings(max_examples=40)
@given(pairs, st.booleans(), st.booleans())
def test_exchanging_sides_mirrors_everything(values, higher, paired):
    scores = list(zip(*values, strict=True))
    left, right = by_seed(scores[0]), by_seed(scores[1], first=1 if paired else 50)
    there, back = (compare(*sides, rng(), higher_is_better=higher) for sides in ((left, right), (right, left)))
    assert there.difference == pytest.approx(-back.difference)
    assert there.probability_of_improvement == pytest.approx(1 - back.probability_of_improvement)
    assert there.p_value == (None if back.p_value is None else pytest.approx(back.p_value))
    assert there.p_spread == (None if back.p_spread is None else pytest.approx(back.p_spread))
    opposite = {"better": "worse", "worse": "better", "undecided": "undecided"}
    assert verdict(there, there.p_value, higher) == opposite[verdict(back, back.p_value, higher)]


@given(pairs, st.randoms())
def test_names_and_order_of_seeds_do_not_matter(values, random):
    names = random.sample(range(100), len(values))
    renamed = [{name: pair[side] for name, pair in zip(names, values, strict=True)} for side in (0, 1)]
    shuffled = {name: renamed[1][name] for name in random.sample(names, len(names))}
    plain = compare(*(by_seed(side) for side in zip(*values, strict=True)), rng())
    found = compare(VariantScores.of(renamed[0]), VariantScores.of(shuffled), rng())
    assert found.difference == pytest.approx(plain.difference)
    assert found.p_value == (None if plain.p_value is None else pytest.approx(plain.p_value))
    assert found.p_permutation == (None if plain.p_permutation is None else pytest.approx(plain.p_permutation))


@given(pairs, st.floats(0.01, 100), st.floats(-5, 5))
def test_the_unit_does_not_matter(values, scale, shift):
    plain, other = (
        compare(*(by_seed([factor * score + add for score in side]) for side in zip(*values, strict=True)), rng())
        for factor, add in ((1.0, 0.0), (scale, shift))
    )
    assert other.difference == pytest.approx(scale * plain.difference, abs=1e-9)
    if plain.p_value is not None:
        assert other.p_value == pytest.approx(plain.p_value, rel=1e-6, abs=1e-9)
        assert other.detectable == pytest.approx(scale * plain.detectable, rel=1e-6)


def test_equal_variants_are_rarely_told_apart_in_a_family_of_ten():
    """Five equally good variants on the same examples: no pair may be told apart in more than 5 % of studies."""
    draws, wrong, runs = np.random.default_rng(4), 0, 3
    for _ in range(150):
        difficulty = draws.normal(1.3, 1, 60)
        noise = [0.3 * draws.normal(size=(runs, 1)) + 0.5 * draws.normal(size=60) for _ in range(5)]
        sides = [answered(difficulty + one + 0.5 * draws.normal(size=(runs, 60)) > 0) for one in noise]
        found = [compare(left, right, draws) for left, right in combinations(sides, 2)]
        adjusted = holm([one.p_value for one in found])
        wrong += any(verdict(one, p) != "undecided" for one, p in zip(found, adjusted, strict=True))
    assert wrong / 150 <= 0.05 + 0.03


def test_a_large_study_is_quick_and_small():
    """20 seeds, 10 tasks, 10,000 examples, 6 variants: 150 comparisons well within 20 s and 1 GB."""
    draws = np.random.default_rng(5)
    tracemalloc.start()
    began = time.perf_counter()
    for _ in range(10):
        sides = [answered(draws.random((20, 10_000)) < 0.9) for _ in range(6)]
        found = [compare(left, right, draws) for left, right in combinations(sides, 2)]
        assert None not in [one.p_value for one in found]
    assert time.perf_counter() - began < 20
    assert tracemalloc.get_traced_memory()[1] < 2e8
    tracemalloc.stop()


def test_a_fixed_model_may_stand_on_either_side():
    """A solved head is one model, whatever the seeds of the other side do."""
    random = np.random.default_rng(3)
    runs, one = (random.random((5, 80)) < 0.8).astype(float), (random.random(80) < 0.6).astype(float)
    seeds = VariantScores.of(dict(enumerate(runs.mean(1))), runs)
    fixed = VariantScores.fixed(one.mean(), one)
    there = compare(seeds, fixed, np.random.default_rng(0))
    back = compare(fixed, seeds, np.random.default_rng(0))
    assert back.difference == -there.difference and back.p_value == there.p_value
    assert back.ci == (-there.ci[1], -there.ci[0])
    assert back.probability_of_improvement == 1 - there.probability_of_improvement
    assert back.p_spread is None and back.sd_ratio is None


def test_two_fixed_models_are_compared_over_examples_alone():
    random = np.random.default_rng(4)
    one, other = (random.random((2, 200)) < [[0.9], [0.6]]).astype(float)
    found = compare(
        VariantScores.fixed(one.mean(), one), VariantScores.fixed(other.mean(), other), np.random.default_rng(0)
    )
    wanted = stats.ttest_rel(one, other)
    assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-6)
    assert found.ci == pytest.approx(tuple(wanted.confidence_interval()), rel=1e-6)
    assert "over examples" in found.method and found.p_spread is None and found.p_mcnemar is not None
    alike = compare(
        VariantScores.fixed(one.mean(), one), VariantScores.fixed(one.mean(), one), np.random.default_rng(0)
    )
    assert alike.p_value is None and "no example's score differs" in alike.reason
    alone = compare(VariantScores.fixed(0.9), VariantScores.fixed(0.6), np.random.default_rng(0))
    assert alone.p_value is None and "no scores of single examples" in alone.reason
