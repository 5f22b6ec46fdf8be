"""Hamming loss of label sets."""

import pytest

from finetune.metrics import find
from tests.metrics.columns import columns
from tests.metrics.sets import LABELS, SETS, drawn


def of(pairs, labels=LABELS):
    return find("hamming_loss").value(columns(pairs) | {"labels": labels})


def test_by_hand():
    # Of four labels each, a is missing and d superfluous; then b and d are.
    assert of(SETS, ("a", "b", "c", "d")) == pytest.approx(4 / 16)


def test_it_is_that_of_the_library():
    from sklearn.metrics import hamming_loss

    pairs, said, wanted = drawn()
    assert of(pairs) == pytest.approx(hamming_loss(wanted, said))
