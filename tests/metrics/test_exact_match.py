"""Exact match."""

from tests.metrics.columns import contributions, value


def test_it_strips_and_minds_the_case():
    pairs = [(" Yes\n", "Yes"), ("yes", "Yes"), ("Yes.", "Yes"), ("", " ")]
    assert value("exact_match", pairs) == 0.5
    assert contributions("exact_match", pairs).tolist() == [1, 0, 0, 1]
