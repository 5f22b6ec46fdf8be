"""Recall at 10: how often what is right is among the first 10."""

import pytest

from finetune.metrics import contributions, find

COLUMNS = {"prediction": ["1", "5", "6", "11", "what?"], "reference": ["1"] * 5}


def test_it_counts_ranks_up_to_10():
    assert find("recall_at_10").value(COLUMNS) == pytest.approx(0.6)
    assert set(contributions("recall_at_10", COLUMNS)) == {0.0, 1.0}
