"""Subset accuracy of label sets."""

import pytest

from tests.metrics.columns import contributions, value
from tests.metrics.sets import SETS, drawn


def test_by_hand():
    assert contributions("subset_accuracy", SETS).tolist() == [0, 0, 1, 1]
    assert value("subset_accuracy", [('["b", "a"]', '["a", "b"]')]) == 1, "sets, whatever their order"


def test_it_is_that_of_the_library():
    from sklearn.metrics import accuracy_score

    pairs, said, wanted = drawn()
    assert value("subset_accuracy", pairs) == pytest.approx(accuracy_score(wanted, said))
