"""Token accuracy: words count alike, whatever sentence they are in."""

import pytest

from tests.metrics.columns import contributions, value


def test_by_hand():
    rows = [("O O O B-a", "O O O O"), ("O", "B-a")]
    assert value("token_accuracy", rows) == pytest.approx(3 / 5)
    # θ + n (right - θ words) / all words.
    assert contributions("token_accuracy", rows) == pytest.approx([0.6 + 2 * 0.6 / 5, 0.6 - 2 * 0.6 / 5])


def test_words_for_which_nothing_is_said_are_wrong():
    assert value("token_accuracy", [("O", "O O"), ("O O O", "O")]) == pytest.approx(2 / 3)
