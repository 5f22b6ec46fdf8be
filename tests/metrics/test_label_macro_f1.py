"""Macro F1 of label sets."""

import pytest

from tests.metrics.columns import contributions, value
from tests.metrics.sets import SETS, drawn


def test_by_hand():
    # a: wanted once and never said rightly, 0; b: hit once, said twice, wanted once, 2/3; c: 1.
    assert value("label_macro_f1", SETS) == pytest.approx((0 + 2 / 3 + 1) / 3)
    assert contributions("label_macro_f1", SETS).mean() == pytest.approx(5 / 9)


def test_it_is_that_of_the_library():
    from sklearn.metrics import f1_score

    pairs, said, wanted = drawn()
    assert wanted.any(0).all()
    assert value("label_macro_f1", pairs) == pytest.approx(f1_score(wanted, said, average="macro", zero_division=0))


def test_without_any_label_in_the_references():
    assert value("label_macro_f1", [('["a"]', "[]")]) == 0
