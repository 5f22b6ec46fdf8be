"""Comparisons against SciPy, Holm's procedure by hand, and properties that any comparison must have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats import compare, compare_to_constant, holm, verdict
from finetune.stats.comparisons import probability_of_improvement

value = st.integers(0, 200).map(lambda k: k / 200)
pairs = st.lists(st.tuples(value, value), min_size=2, max_size=8)


def by_seed(values):
    return dict(enumerate(values, start=1))


def test_paired_test_is_scipys():
    rng = np.random.default_rng(0)
    left, right = rng.normal(0.9, 0.02, 5), rng.normal(0.88, 0.02, 5)
    found, expected = compare(by_seed(left), by_seed(right)), stats.ttest_rel(left, right)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.ci == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.difference == pytest.approx((left - right).mean()) and found.n == 5


def test_constant_is_scipys_one_sample_test():
    left = np.random.default_rng(1).normal(0.9, 0.02, 4)
    found, expected = compare_to_constant(by_seed(left), 0.87), stats.ttest_1samp(left, 0.87)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.ci == pytest.approx(np.array(expected.confidence_interval(0.95)) - 0.87)


def test_only_common_seeds_are_paired():
    found = compare({1: 0.5, 2: 0.7, 3: 9.0}, {1: 0.4, 2: 0.5, 4: -9.0})
    assert found.n == 2 and found.difference == pytest.approx(0.15)


def test_no_common_seed_gives_a_reason():
    found = compare({1: 0.5, 2: 0.6}, {3: 0.4, 4: 0.3})
    assert (found.n, found.difference, found.p_value, found.ci) == (0, None, None, None)
    assert "no seed in common" in found.reason and found.probability_of_improvement == 1.0


def test_one_common_seed_gives_a_difference_without_interval():
    found = compare({1: 0.5}, {1: 0.4})
    assert found.difference == pytest.approx(0.1) and found.p_value is None and "one seed" in found.reason


def test_equal_differences_are_not_certainty():
    # 0.93 - 0.90 and 0.94 - 0.91 differ by rounding alone, and would give p = 1e-15.
    found = compare({1: 0.93, 2: 0.94}, {1: 0.90, 2: 0.91})
    assert found.p_value is None and found.ci is None and "equal" in found.reason
    assert verdict(found, None) == "undecided"


def test_nothing_scored():
    assert compare_to_constant({}, 0.5).reason == "no run has this score"


def test_probability_of_improvement_by_hand():
    # Pairs: 1>0, 1=1, 2>0, 2>1: three wins and half a tie of four.
    assert probability_of_improvement([1, 2], [0, 1]) == 3.5 / 4
    assert probability_of_improvement([1, 2], [0, 1], higher_is_better=False) == 0.5 / 4
    assert probability_of_improvement([], [1]) is None


def test_holm_by_hand():
    # Sorted: .005*4, .01*3, .03*2, .04*1 -> .02, .03, .06, and .04 is raised to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []


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
    found = compare(by_seed([0.90, 0.91, 0.92]), by_seed([0.50, 0.52, 0.51]), higher)
    assert found.p_value < 0.05
    assert verdict(found, found.p_value, higher) == ("better" if higher else "worse")
    assert verdict(found, 0.2, higher) == "undecided"


def test_interval_containing_zero_is_undecided_whatever_p_says():
    found = compare(by_seed([0.5, 0.6, 0.4]), by_seed([0.5, 0.4, 0.6]))
    assert verdict(found, 0.001) == "undecided"


@given(pairs, st.booleans())
def test_exchanging_sides_mirrors_everything(values, higher):
    left, right = (by_seed(side) for side in zip(*values, strict=True))
    there, back = compare(left, right, higher), compare(right, left, higher)
    assert there.difference == pytest.approx(-back.difference)
    assert there.probability_of_improvement == pytest.approx(1 - back.probability_of_improvement)
    assert there.p_value == (None if back.p_value is None else pytest.approx(back.p_value))
    opposite = {"better": "worse", "worse": "better", "undecided": "undecided"}
    assert verdict(there, there.p_value, higher) == opposite[verdict(back, back.p_value, higher)]


@given(pairs, st.randoms())
def test_names_of_seeds_do_not_matter(values, random):
    names = random.sample(range(100), len(values))
    left, right = ({name: pair[side] for name, pair in zip(names, values, strict=True)} for side in (0, 1))
    plain = compare(*(by_seed(side) for side in zip(*values, strict=True)))
    renamed = compare(left, right)
    assert renamed.difference == pytest.approx(plain.difference)
    assert renamed.p_value == (None if plain.p_value is None else pytest.approx(plain.p_value))
