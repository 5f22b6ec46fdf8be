"""Perplexity and bits per byte."""

import numpy as np
import pytest

from tests.metrics.columns import SENTENCES, contributions, value


def test_perplexity_is_that_of_a_fair_choice():
    losses = [3 * np.log(7), 5 * np.log(7)]
    assert value("perplexity", SENTENCES[:2], loss=losses, weight=[3, 5]) == pytest.approx(7)
    assert contributions("perplexity", SENTENCES[:2], loss=losses, weight=[3, 5]).tolist() == pytest.approx([7, 7])


def test_a_byte_of_eight_fair_bits_takes_eight():
    losses = [6 * np.log(256), 2 * np.log(256)]
    assert value("bits_per_byte", SENTENCES[:2], loss=losses, size=[6, 2]) == pytest.approx(8)
    assert value("bits_per_byte", SENTENCES[:2], loss=losses, size=[12, 4]) == pytest.approx(4)
