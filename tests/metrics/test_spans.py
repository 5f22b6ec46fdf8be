"""Texts as SQuAD compares them, and several right answers as one reference."""

import json

import pytest

from finetune.core.answers import spans_in, spans_said
from finetune.metrics.spans import normalised


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
