"""Spearman's rank correlation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from tests.metrics.columns import contributions, value
from tests.metrics.test_pearson import pairs

few = st.integers(-3, 3).map(float)
numbers = few | st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(numbers, few | numbers), min_size=2, max_size=30))
def test_it_is_that_of_scipy_also_with_ties(rows):
    said, wanted = np.array(rows).T
    if len(set(said)) > 1 and len(set(wanted)) > 1:
        assert value("spearman", pairs(said, wanted)) == pytest.approx(spearmanr(said, wanted).statistic, abs=1e-9)


@pytest.mark.parametrize("table", [[(1, 2), (1, 3)], [(1, 2), (3, 2)], [(1, 1)]])
def test_that_of_a_constant_is_zero_without_a_warning(table, recwarn):
    given = pairs(*zip(*table, strict=True))
    assert value("spearman", given) == 0.0 and contributions("spearman", given).tolist() == [0.0] * len(table)
    assert not recwarn.list


def test_only_the_order_counts():
    said, wanted = np.random.default_rng(0).normal(size=(2, 50))
    plain = pairs(said, wanted)
    bent = pairs(np.exp(3 * said), wanted**3)
    assert value("spearman", bent) == pytest.approx(value("spearman", plain))
    assert contributions("spearman", bent) == pytest.approx(contributions("spearman", plain))


def test_a_model_that_says_no_number_has_none():
    assert np.isnan(value("spearman", pairs([1, np.nan, 2], [1, 2, 3])))
