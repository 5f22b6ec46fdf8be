"""ROUGE of lines."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from finetune.metrics import find
from tests.metrics.columns import SENTENCES, columns, value

LINES = [("a cat sat.\nit slept on a mat", "a cat slept.\nthe mat was red"), *SENTENCES]


def test_it_is_that_of_the_library():
    scores = [RougeScorer(["rougeLsum"]).score(wanted, said)["rougeLsum"].fmeasure for said, wanted in LINES]
    assert find("rouge_lsum").per_example(columns(LINES)).tolist() == pytest.approx(scores)
    assert value("rouge_lsum", LINES) == pytest.approx(np.mean(scores)) and 0 < np.mean(scores) < 1


def test_by_hand():
    assert value("rouge_lsum", SENTENCES) == pytest.approx(value("rouge_l", SENTENCES)), "each on one line"
    swapped = [("the mat was red\na cat slept", "a cat slept\nthe mat was red")]
    assert value("rouge_lsum", swapped) == 1 > value("rouge_l", swapped)
