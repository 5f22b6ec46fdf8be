"""Reward accuracy."""

from tests.metrics.columns import SENTENCES, contributions, value


def test_it_is_the_share_of_pairs_that_training_has_told_apart_better():
    assert value("reward_accuracy", SENTENCES, reward=[0.1, -3.0, 0.0, 7.0]) == 0.5
    assert contributions("reward_accuracy", SENTENCES, reward=[0.1, -3.0, 0.0, 7.0]).tolist() == [1, 0, 0, 1]
