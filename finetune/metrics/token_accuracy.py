"""Token accuracy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.sums import ratio_of_sums
from finetune.metrics.unit import percent


@METRICS.register
class TokenAccuracy(Metric):
    """Share of the words of all examples whose tag is the one wanted.

    Predictions and references are tags joined by spaces; a word for which no tag is said counts as wrong. It is 0 where
    there are no words.
    """

    name = "token_accuracy"
    unit = percent("token accuracy")
    hub: ClassVar = {"type": "accuracy", "config": "by token"}

    def value(self, columns: Columns) -> float:
        """Compute the share from the sums over examples."""
        right, words = _counts(columns)
        return float(right.sum() / words.sum()) if words.sum() else 0.0

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds to the ratio of the sums."""
        return ratio_of_sums(*_counts(columns))


def _counts(columns: Columns) -> tuple[Values, Values]:
    """Count the right tags and the words of each example, (examples,) both."""
    pairs = [
        (said.split(), wanted.split()) for said, wanted in zip(columns["prediction"], columns["reference"], strict=True)
    ]
    right = [sum(one == other for one, other in zip(said, wanted, strict=False)) for said, wanted in pairs]
    return np.array(right, float), np.array([len(wanted) for _, wanted in pairs], float)
