"""ROUGE-L."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Values
from finetune.metrics.rouge import Rouge
from finetune.metrics.unit import percent


@METRICS.register
class RougeL(Rouge):
    """Longest common word subsequence, F-measure, a mean over examples.

    Lin 2004, section 3, without a stemmer. Words are runs of a-z and 0-9 after lower-casing: a text without any has
    the score 0, even against itself.
    """

    name = "rouge_l"
    kind: ClassVar[str] = "rougeL"
    unit = percent("ROUGE-L")
    hub: ClassVar = {"type": "rouge", "config": "rougeL"}

    @property
    def contributing(self) -> tuple[str, ...]:
        """The score that a task with answers in text stores for each example; to compute it again takes minutes."""
        return ("score",)

    def contributions(self, columns: Columns) -> Values:
        """Read the stored scores: hold their mean against the run's score, where a task may have kept another."""
        return np.array(columns["score"], dtype=float)
