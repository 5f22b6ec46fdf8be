"""Recall at 1, 5 and 10: how often what is right is among the first."""

import pytest

from finetune.metrics import contributions, find


@pytest.mark.parametrize(("most", "share"), [(1, 0.2), (5, 0.4), (10, 0.6)])
def test_it_counts_ranks_up_to_its_number(most, share):
    columns = {"prediction": ["1", "5", "6", "11", "what?"], "reference": ["1"] * 5}
    assert find(f"recall_at_{most}").value(columns) == pytest.approx(share)
    assert set(contributions(f"recall_at_{most}", columns)) == {0.0, 1.0}
