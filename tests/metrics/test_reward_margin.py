"""Reward margin."""

from tests.metrics.columns import SENTENCES, contributions, value


def test_it_is_the_mean_difference_of_rewards():
    assert value("reward_margin", SENTENCES, reward=[0.5, -3.0, 0.0, 7.0]) == 1.125
    assert contributions("reward_margin", SENTENCES, reward=[0.5, -3.0, 0.0, 7.0]).tolist() == [0.5, -3.0, 0.0, 7.0]
