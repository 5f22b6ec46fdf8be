"""Negative log-likelihood of an example."""

import pytest

from tests.metrics.columns import BINARY, contributions, value


def test_it_is_the_mean_over_examples():
    assert value("nll", BINARY[:2], loss=[1.0, 3.0], weight=[1, 1]) == pytest.approx(2.0)
    assert contributions("nll", BINARY[:2], loss=[1.0, 3.0]).tolist() == [1.0, 3.0]
