"""ROUGE-L."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import percent


@METRICS.register
class RougeL(MeanMetric):
    """Longest common word subsequence, F-measure, a mean over examples.

    Lin 2004, section 3, without a stemmer. Words are runs of a-z and 0-9 after lower-casing: a text without any has
    the score 0, even against itself.
    """

    name = "rouge_l"
    unit = percent("ROUGE-L")
    hub: ClassVar = {"type": "rouge", "config": "rougeL"}

    @property
    def contributing(self) -> tuple[str, ...]:
        """The score that a task with answers in text stores for each example; to compute it again takes minutes."""
        return ("score",)

    def per_example(self, columns: Columns) -> Values:
        """Compute the F-measures, in [0, 1]."""
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(["rougeL"], use_stemmer=False)
        pairs = zip(columns["prediction"], columns["reference"], strict=True)
        # The scorer gives the integer 0 where nothing matches.
        return np.array([scorer.score(wanted, said)["rougeL"].fmeasure for said, wanted in pairs], dtype=float)

    def contributions(self, columns: Columns) -> Values:
        """Read the stored scores: hold their mean against the run's score, where a task may have kept another."""
        return np.array(columns["score"], dtype=float)
