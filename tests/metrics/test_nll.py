"""Negative log-likelihood of an example."""

import numpy as np
import pytest

from tests.metrics.columns import BINARY, contributions, value


def test_it_is_the_mean_over_examples():
    assert value("nll", BINARY[:2], loss=[1.0, 3.0], weight=[1, 1]) == pytest.approx(2.0)
    assert contributions("nll", BINARY[:2], loss=[1.0, 3.0], weight=[1, 1]).tolist() == [1.0, 3.0]


def test_an_example_without_a_likelihood_is_left_out():
    assert value("nll", BINARY[:3], loss=[1.0, 0.0, 4.0], weight=[1, 0, 1]) == pytest.approx(2.5)
    # 2.5 + 3/2 (1 - 2.5), 2.5, 2.5 + 3/2 (4 - 2.5)
    assert contributions("nll", BINARY[:3], loss=[1.0, 0.0, 4.0], weight=[1, 0, 1]).tolist() == [0.25, 2.5, 4.75]
    assert np.isnan(value("nll", BINARY[:1], loss=[0.0], weight=[0]))
