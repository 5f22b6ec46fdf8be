"""Recall at 1: how often what is right is among the first 1."""

import pytest

from finetune.metrics import contributions, find

COLUMNS = {"prediction": ["1", "5", "6", "11", "what?"], "reference": ["1"] * 5}


def test_it_counts_ranks_up_to_1():
    assert find("recall_at_1").value(COLUMNS) == pytest.approx(0.2)
    assert set(contributions("recall_at_1", COLUMNS)) == {0.0, 1.0}
