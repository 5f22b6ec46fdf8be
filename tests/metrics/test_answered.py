"""The share of texts with an answer."""

from tests.metrics.columns import SENTENCES, contributions, value


def test_it_is_the_share_of_texts_in_which_an_answer_is_found():
    assert value("answered", SENTENCES, extracted=["4", "", "0", "no"]) == 0.75
    assert contributions("answered", SENTENCES, extracted=["4", "", "0", "no"]).tolist() == [1, 0, 1, 1]
