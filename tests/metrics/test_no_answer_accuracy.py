"""Whether it is rightly said that there is an answer."""

from tests.metrics.columns import contributions
from tests.metrics.spans import pairs


def test_whether_there_is_an_answer_is_asked_whatever_it_is():
    assert contributions("no_answer_accuracy", pairs()).tolist() == [1, 1, 1, 0, 0, 1, 1]
