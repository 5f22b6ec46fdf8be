"""Pearson's correlation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from tests.metrics.columns import contributions, value

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def pairs(said, wanted):
    return list(zip(map(repr, map(float, said)), map(repr, map(float, wanted)), strict=True))


@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=30))
def test_it_is_that_of_scipy(rows):
    said, wanted = np.array(rows).T
    if np.ptp(said) > 1e-3 * np.abs(said).max() > 0 and np.ptp(wanted) > 1e-3 * np.abs(wanted).max() > 0:
        assert value("pearson", pairs(said, wanted)) == pytest.approx(pearsonr(said, wanted).statistic, abs=1e-7)


@pytest.mark.parametrize("table", [[(1, 2), (1, 3)], [(1, 2), (3, 2)], [(1, 1)]])
def test_that_of_a_constant_is_zero_without_a_warning(table, recwarn):
    given = pairs(*zip(*table, strict=True))
    assert value("pearson", given) == 0.0 and contributions("pearson", given).tolist() == [0.0] * len(table)
    assert not recwarn.list


def test_a_unit_and_a_start_do_not_matter():
    said, wanted = np.random.default_rng(0).normal(size=(2, 50))
    plain = value("pearson", pairs(said, wanted))
    assert value("pearson", pairs(1e9 + 3 * said, 1e-9 * wanted)) == pytest.approx(plain, abs=1e-6)
    assert value("pearson", pairs(1e300 * said, 1e-300 * wanted)) == pytest.approx(plain)
    assert value("pearson", pairs(-said, wanted)) == pytest.approx(-plain)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_diverged_model_has_none(wrong, recwarn):
    assert np.isnan(value("pearson", pairs([1, wrong, 2], [1, 2, 3])))
    assert not recwarn.list
