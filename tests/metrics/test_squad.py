"""SQuAD's metrics, against its official evaluation as the hub's `squad_v2` and `evaluate-v2.0.py` describe it."""

import json

import pytest

from finetune.core.answers import spans_in, spans_said
from finetune.metrics.spans import normalised
from tests.metrics.columns import contributions, value

ROWS = [
    ("The  France!", ["France", "in France"]),
    ("north of France", ["France", "in France"]),
    ("", []),
    ("France", []),
    ("", ["France"]),
    ("the", ["a"]),  # nothing is left of either: no answer was wanted, and none is said
    ("cat cat dog", ["cat dog dog", "fish"]),
]


def pairs():
    return [(said, spans_said(wanted)) for said, wanted in ROWS]


def test_exact_match_is_by_the_official_rules():
    assert contributions("squad_em", pairs()).tolist() == [1, 0, 1, 0, 0, 1, 0]
    assert value("squad_em", pairs()) == pytest.approx(3 / 7)


def test_f1_counts_words_and_takes_the_nearest_answer():
    found = contributions("squad_f1", pairs())
    assert found.tolist() == pytest.approx([1, 0.5, 1, 0, 0, 1, 2 / 3])
    # Of "north of france": 1 of 3 words with "france" (F1 0.5), 1 of 3 with "in france" (F1 0.4).
    assert value("squad_f1", pairs()) == pytest.approx(found.mean())


def test_whether_there_is_an_answer_is_asked_whatever_it_is():
    assert contributions("no_answer_accuracy", pairs()).tolist() == [1, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "text, left",
    [("The Cat's, hat.", "cats hat"), ("an  A\tthe", ""), ("theatre", "theatre"), ("20–30%", "20–30"), ("É", "é")],
)
def test_texts_are_normalised_as_the_official_script_does(text, left):
    assert normalised(text) == left


@pytest.mark.parametrize("answers", [[], ["a"], ["a", "b"], ['[]"', "[1]"], ["é\n"]])
def test_all_right_answers_are_one_reference_and_come_back(answers):
    assert spans_in(spans_said(answers)) == answers


@pytest.mark.parametrize("text", ["plain", "", "[1]", "[plain]", "[1, 2]", "[null]"])
def test_any_other_text_is_one_answer(text):
    assert spans_in(text) == [text]


def test_an_answer_that_is_given_twice_counts_once():
    assert json.loads(spans_said(["a", "a", "b"])) == ["a", "b"]
