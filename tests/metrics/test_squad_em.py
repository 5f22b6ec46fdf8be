"""Exact match by SQuAD's rules."""

import pytest

from tests.metrics.columns import contributions, value
from tests.metrics.spans import pairs


def test_exact_match_is_by_the_official_rules():
    assert contributions("squad_em", pairs()).tolist() == [1, 0, 1, 0, 0, 1, 0]
    assert value("squad_em", pairs()) == pytest.approx(3 / 7)
