"""Macro F1."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from tests.metrics.columns import BINARY, contributions, value


def test_by_hand():
    # a: precision 2/3, recall 2/3, F1 2/3; b: precision 1/2, recall 1/2, F1 1/2.
    assert value("macro_f1", BINARY) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_it_is_over_the_labels_of_the_references():
    # a: precision 1, recall 1/2, F1 2/3; "never" is no reference and must not add a zero to the mean.
    assert value("macro_f1", [("a", "a"), ("never", "a"), ("b", "b")]) == pytest.approx((2 / 3 + 1) / 2)


def test_it_is_that_of_the_library():
    random = np.random.default_rng(0)
    said, true = random.choice(["a", "b", "c"], 60).tolist(), random.choice(["a", "b", "c"], 60).tolist()
    pairs = list(zip(said, true, strict=True))
    assert value("macro_f1", pairs) == pytest.approx(f1_score(true, said, average="macro"))


def test_contributions_by_hand():
    """F1 of a: 2/3 (one hit, one true, two said); of b: 0. The hit adds to a's hits, true and said; and so on."""
    # d/dw of the hit: (2 - 2 * 2/3) / 3 / 2 labels = 1/9; the miss takes it away: -2/3 / 3 / 2 = -1/9.
    found = contributions("macro_f1", [("a", "a"), ("a", "b")])
    assert found == pytest.approx([1 / 3 + 2 / 9, 1 / 3 - 2 / 9])
