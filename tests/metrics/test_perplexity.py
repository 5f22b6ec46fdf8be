"""Perplexity."""

import numpy as np
import pytest

from tests.metrics.columns import SENTENCES, contributions, value


def test_perplexity_is_that_of_a_fair_choice():
    losses = [3 * np.log(7), 5 * np.log(7)]
    assert value("perplexity", SENTENCES[:2], loss=losses, weight=[3, 5]) == pytest.approx(7)
    assert contributions("perplexity", SENTENCES[:2], loss=losses, weight=[3, 5]).tolist() == pytest.approx([7, 7])
