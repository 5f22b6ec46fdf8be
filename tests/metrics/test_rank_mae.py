"""Mean absolute error of ranks."""

import pytest

from finetune.metrics import find
from tests.metrics.columns import columns


def test_it_counts_places_in_the_order_of_the_labels():
    table = columns([("low", "high"), ("high", "medium"), ("low", "low")]) | {"labels": ("low", "medium", "high")}
    assert find("rank_mae").contributions(table).tolist() == [2, 1, 0]
    assert find("rank_mae").value(table) == pytest.approx(1)
