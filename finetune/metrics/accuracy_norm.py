"""Length-normalised accuracy."""

from __future__ import annotations

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import percent


@METRICS.register
class AccuracyNorm(MeanMetric):
    """Share of questions whose right choice has the highest log-likelihood per character.

    Of each choice, the log-likelihood summed over its tokens is divided by the characters of its text, so that long
    ones are not at a disadvantage: the `acc_norm` of EleutherAI's lm-evaluation-harness. A tie is wrong.
    """

    name = "accuracy_norm"
    unit = percent("length-normalised accuracy")
    columns = ("margin_norm",)
    right_or_wrong = True

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where the right choice's log-likelihood per character exceeds that of all others, else 0.0."""
        return (np.asarray(columns["margin_norm"], dtype=float) > 0).astype(float)
