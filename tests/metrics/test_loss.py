"""Negative log-likelihood of a token."""

import pytest

from tests.metrics.columns import SENTENCES, contributions, value


def test_it_is_the_mean_over_tokens():
    assert value("loss", SENTENCES[:2], loss=[1.0, 8.0], weight=[1, 5]) == pytest.approx(9 / 6)


def test_contributions_by_hand():
    # Mean 12 / 4 = 3; a contribution is 3 + 2 * (loss - 3 weight) / 4.
    assert contributions("loss", SENTENCES[:2], loss=[9.0, 3.0], weight=[1.0, 3.0]).tolist() == [6.0, 0.0]
