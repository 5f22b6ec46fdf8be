"""Exact match."""

from __future__ import annotations

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import percent


@METRICS.register
class ExactMatch(MeanMetric):
    """Share of texts equal to the reference, white space around them aside; upper and lower case differ.

    Of a task that looks for answers in texts, the share of answers equal to the reference's.
    """

    name = "exact_match"
    unit = percent("exact match")
    right_or_wrong = True
    of_answers = True

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where they are the same, else 0.0."""
        pairs = zip(columns["prediction"], columns["reference"], strict=True)
        return np.array([float(said.strip() == wanted.strip()) for said, wanted in pairs])
