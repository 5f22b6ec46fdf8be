"""ROUGE of words, pairs of words, and lines."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from finetune.metrics import find
from tests.metrics.columns import SENTENCES, columns, value

LINES = [("a cat sat.\nit slept on a mat", "a cat slept.\nthe mat was red"), *SENTENCES]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL"), ("rouge_lsum", "rougeLsum")],
)
def test_they_are_those_of_the_library(name, kind):
    scores = [RougeScorer([kind]).score(wanted, said)[kind].fmeasure for said, wanted in LINES]
    assert find(name).per_example(columns(LINES)).tolist() == pytest.approx(scores)
    assert value(name, LINES) == pytest.approx(np.mean(scores)) and 0 < np.mean(scores) < 1


def test_by_hand():
    # Words in both: cat, sat, on, mat of six and six; pairs: "cat sat", "sat on" of five and five.
    assert value("rouge_1", SENTENCES[:1]) == pytest.approx(4 / 6)
    assert value("rouge_2", SENTENCES[:1]) == pytest.approx(2 / 5)
    assert value("rouge_lsum", SENTENCES) == pytest.approx(value("rouge_l", SENTENCES)), "each on one line"
    swapped = [("the mat was red\na cat slept", "a cat slept\nthe mat was red")]
    assert value("rouge_lsum", swapped) == 1 > value("rouge_l", swapped)
