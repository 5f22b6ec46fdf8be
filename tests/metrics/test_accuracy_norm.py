"""Length-normalised accuracy."""

from tests.metrics.columns import value


def test_a_question_is_right_where_its_choice_is_ahead_of_all_others():
    assert value("accuracy_norm", [("A", "A")] * 4, margin_norm=[0.5, -0.5, 1e-9, 0.0]) == 0.5
