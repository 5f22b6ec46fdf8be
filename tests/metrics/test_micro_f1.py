"""Micro F1 of label sets."""

import pytest

from tests.metrics.columns import contributions, value
from tests.metrics.sets import SETS, drawn


def test_by_hand():
    # Two hits of b and c; five labels said and three wanted.
    assert value("micro_f1", SETS) == pytest.approx(2 * 2 / 8)
    assert contributions("micro_f1", SETS).mean() == pytest.approx(1 / 2)


def test_it_is_that_of_the_library():
    from sklearn.metrics import f1_score

    pairs, said, wanted = drawn()
    assert value("micro_f1", pairs) == pytest.approx(f1_score(wanted, said, average="micro"))


def test_nothing_said_and_nothing_wanted():
    assert value("micro_f1", [("[]", "[]")]) == 0 and contributions("micro_f1", [("[]", "[]")]).tolist() == [0.0]
    assert value("micro_f1", [("[]", "[]"), ('["a"]', '["a"]')]) == 1
