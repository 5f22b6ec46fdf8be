"""ROUGE-L."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from finetune.metrics import find
from tests.metrics.columns import SENTENCES, columns, contributions, value


def test_by_hand():
    # Common subsequence "cat sat on mat" (4) of 6 and 6 words: precision = recall = 4/6.
    assert value("rouge_l", SENTENCES[:1]) == pytest.approx(4 / 6)
    # 1 of 2 and 1 of 6 words: F = 2 * 1/2 * 1/6 / (1/2 + 1/6) = 1/4, whatever the letter case.
    assert value("rouge_l", SENTENCES[1:2]) == pytest.approx(1 / 4)
    assert value("rouge_l", SENTENCES) == pytest.approx((4 / 6 + 1 / 4 + 0 + 1) / 4)


def test_it_is_that_of_the_library():
    scorer = RougeScorer(["rougeL"])
    assert value("rouge_l", SENTENCES) == pytest.approx(
        np.mean([scorer.score(wanted, said)["rougeL"].fmeasure for said, wanted in SENTENCES])
    )


def test_scores_are_floats_where_nothing_matches():
    assert find("rouge_l").per_example(columns([("", "?")])).dtype == np.float64


def test_contributions_are_what_was_stored():
    own = find("rouge_l").per_example(columns(SENTENCES))
    assert contributions("rouge_l", SENTENCES, score=own).tolist() == own.tolist()
    assert find("rouge_l").contributing == ("score",)
