"""Preference accuracy."""

from tests.metrics.columns import SENTENCES, contributions, value


def test_it_is_the_share_of_pairs_with_the_better_answer_ahead():
    assert value("preference_accuracy", SENTENCES, margin=[0.1, -3.0, 0.0, 7.0]) == 0.5
    assert contributions("preference_accuracy", SENTENCES, margin=[0.1, -3.0, 0.0, 7.0]).tolist() == [1, 0, 0, 1]
