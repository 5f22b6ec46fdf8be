"""Thresholds that are chosen by validation predictions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.tasks.thresholds import best_threshold

rows = st.lists(
    st.tuples(st.integers(-4, 4), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 1.0])),
    min_size=1,
    max_size=12,
)


def total(threshold, table):
    return sum(above if margin > threshold else below for margin, above, below in table)


@given(rows)
def test_no_threshold_is_better(table):
    found = best_threshold(*zip(*table, strict=True))
    tried = [*np.arange(-6, 6, 0.25), found]
    assert total(found, table) == pytest.approx(max(total(threshold, table) for threshold in tried))
    if total(0.0, table) == pytest.approx(total(found, table)):
        assert found == 0.0


def test_it_lies_between_neighbours_and_beyond_all_of_them():
    assert best_threshold([1, 2, 4], [0, 0, 1], [1, 1, 0]) == 3
    assert best_threshold([-5, -3], [1, 1], [0, 0]) == -6
    assert best_threshold([3, 5], [0, 0], [1, 1]) == 6


def test_without_numbers_it_stays_where_it_is():
    assert best_threshold([np.nan, np.inf], [1, 1], [0, 0]) == 0
    assert best_threshold([np.nan, -1.0], [0, 1], [1, 0]) == -2
