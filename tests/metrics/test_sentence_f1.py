"""Sentence F1: the mean of each sentence's own."""

import pytest

from tests.metrics.columns import contributions, value


def test_by_hand():
    rows = [("B-a O B-b", "B-a O B-a"), ("O O", "O O"), ("O", "B-a")]
    assert contributions("sentence_f1", rows) == pytest.approx([0.5, 1.0, 0.0])
    assert value("sentence_f1", rows) == pytest.approx(0.5)
