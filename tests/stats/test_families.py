"""The families against SciPy's distributions, and the properties that make interval and p-value agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats import family_of
from finetune.stats.families import AllPairs, Part, Sequential, Several
from finetune.stats.sequence import e_value

FAMILIES = [Several(), Several(7), AllPairs(2), AllPairs(4), AllPairs(15), Sequential(3), Part(AllPairs(5), 0.6)]


@pytest.mark.parametrize("df", [1.7, 4, 56])
def test_one_comparison_is_judged_by_students_t(df):
    assert Several().tail(2.2, df) == pytest.approx(2 * stats.t.sf(2.2, df))


@pytest.mark.parametrize("count", [2, 10, 105])
def test_several_are_sidaks(count):
    """1 - (1 - p)^count; a tenth of it where p is small, and near it where p is large."""
    alone = 2 * stats.t.sf(3.0, 8)
    assert Several(count).tail(3.0, 8) == pytest.approx(1 - (1 - alone) ** count)
    assert Several(count).tail(0.0, 8) == 1


@pytest.mark.parametrize(("variants", "df"), [(3, 4), (5, 16), (15, 56), (6, 299)])
@pytest.mark.parametrize("t", [1.2, 1.9, 2.9, 3.7, 6.2])
def test_all_pairs_are_scipys_studentized_range(variants, df, t):
    wanted = stats.studentized_range.sf(t * 2**0.5, variants, df)
    assert AllPairs(variants).tail(t, df) == pytest.approx(wanted, rel=2e-3, abs=1e-12)


def test_a_printed_quantile_of_the_range():
    """q(.05; 3, 10) = 3.877 and q(.05; 5, 20) = 4.232 in any table."""
    assert AllPairs(3).tail(3.877 / 2**0.5, 10) == pytest.approx(0.05, abs=2e-4)
    assert AllPairs(5).tail(4.232 / 2**0.5, 20) == pytest.approx(0.05, abs=2e-4)


def test_two_variants_have_one_pair():
    assert AllPairs(2).tail(2.5, 6) == Several().tail(2.5, 6)


@pytest.mark.parametrize("t", [30.0, 100.0, 1e4])
def test_far_out_the_tail_goes_on_falling(t):
    family = AllPairs(5)
    assert 0 < family.tail(2 * t, 4) < family.tail(t, 4) < 1e-3


@pytest.mark.parametrize("scores", [[0.1, 0.3, 0.2, 0.5, 0.4], [2.0, 2.5, 1.0, 3.0]])
def test_a_sequential_p_value_is_one_over_the_e_value(scores):
    n = len(scores)
    t = np.mean(scores) / (np.std(scores, ddof=1) / n**0.5)
    assert Sequential().tail(t, n - 1) == pytest.approx(min(1, 1 / e_value(scores)))
    assert Sequential(3).tail(t, n - 1) == pytest.approx(min(1, 3 / e_value(scores)))
    assert Sequential(3).tail(t, 299, of_seeds=False) == Several(3).tail(t, 299)  # no example was added


@given(st.sampled_from(FAMILIES), st.floats(0, 50), st.floats(0, 5), st.sampled_from([2, 16]))
def test_a_larger_statistic_is_never_less_extreme(family, t, more, df):
    assert 0 <= family.tail(t + more, df) <= family.tail(t, df) * (1 + 1e-9) <= 1 + 1e-9


def test_a_part_of_the_error_makes_p_values_larger():
    assert Part(Several(), 0.5).tail(3, 8) == pytest.approx(2 * Several().tail(3, 8))
    assert Part(Several(), 0.5).tail(0.1, 8) == 1
    assert str(Part(AllPairs(4), 0.5)) == str(AllPairs(4))


def test_a_family_is_that_of_all_pairs_only_where_all_are_there():
    assert family_of(10, 5) == AllPairs(5) and family_of(9, 5) == Several(9) and family_of(4) == Several(4)
    assert family_of(10, 5, sequential=True) == Sequential(10)


def test_a_family_says_what_it_is():
    assert str(Several()) == "judged alone"
    assert "3 others (Šidák)" in str(Several(4)) and "6 variants (Tukey)" in str(AllPairs(6))
    assert "e-values" in str(Sequential(2))
