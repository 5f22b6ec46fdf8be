"""Loss of pairs against the reference."""

import math

import pytest

from tests.metrics.columns import SENTENCES, contributions, value


def test_it_is_the_loss_of_dpo():
    rewards = [0.5, -3.0, 0.0, 800.0]
    wanted = [math.log1p(math.exp(-each)) for each in rewards]
    assert contributions("preference_loss", SENTENCES, reward=rewards).tolist() == pytest.approx(wanted)
    assert value("preference_loss", SENTENCES, reward=rewards) == pytest.approx(sum(wanted) / 4)
    assert value("preference_loss", SENTENCES, reward=[0.0] * 4) == pytest.approx(math.log(2))
