"""Bits per byte: whatever the tokens."""

import numpy as np
import pytest

from tests.metrics.columns import SENTENCES, value


def test_a_byte_of_eight_fair_bits_takes_eight():
    losses = [6 * np.log(256), 2 * np.log(256)]
    assert value("bits_per_byte", SENTENCES[:2], loss=losses, size=[6, 2]) == pytest.approx(8)
    assert value("bits_per_byte", SENTENCES[:2], loss=losses, size=[12, 4]) == pytest.approx(4)
