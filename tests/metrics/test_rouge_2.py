"""ROUGE of pairs of words."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from finetune.metrics import find
from tests.metrics.columns import SENTENCES, columns, value

LINES = [("a cat sat.\nit slept on a mat", "a cat slept.\nthe mat was red"), *SENTENCES]


def test_it_is_that_of_the_library():
    scores = [RougeScorer(["rouge2"]).score(wanted, said)["rouge2"].fmeasure for said, wanted in LINES]
    assert find("rouge_2").per_example(columns(LINES)).tolist() == pytest.approx(scores)
    assert value("rouge_2", LINES) == pytest.approx(np.mean(scores)) and 0 < np.mean(scores) < 1


def test_by_hand():
    # Pairs in both: "cat sat", "sat on" of five and five.
    assert value("rouge_2", SENTENCES[:1]) == pytest.approx(2 / 5)
