"""ROUGE of words."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from finetune.metrics import find
from tests.metrics.columns import SENTENCES, columns, value

LINES = [("a cat sat.\nit slept on a mat", "a cat slept.\nthe mat was red"), *SENTENCES]


def test_it_is_that_of_the_library():
    scores = [RougeScorer(["rouge1"]).score(wanted, said)["rouge1"].fmeasure for said, wanted in LINES]
    assert find("rouge_1").per_example(columns(LINES)).tolist() == pytest.approx(scores)
    assert value("rouge_1", LINES) == pytest.approx(np.mean(scores)) and 0 < np.mean(scores) < 1


def test_by_hand():
    # Words in both: cat, sat, on, mat of six and six.
    assert value("rouge_1", SENTENCES[:1]) == pytest.approx(4 / 6)
