"""Accuracy."""

from __future__ import annotations

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import percent


@METRICS.register
class Accuracy(MeanMetric):
    """Share of right labels."""

    name = "accuracy"
    unit = percent("accuracy")
    right_or_wrong = True
    by_equality = True
    of_answers = True

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where prediction and reference are the same, letter by letter, else 0.0."""
        said, wanted = columns["prediction"], columns["reference"]
        if isinstance(said, np.ndarray):
            return np.asarray(said == wanted, dtype=float)
        # Not as arrays of text, which drop null characters at the end.
        return np.array([float(p == r) for p, r in zip(said, wanted, strict=True)])
