"""Share of texts in which there is an answer."""

from __future__ import annotations

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import percent


@METRICS.register
class Answered(MeanMetric):
    """Share of texts in which there is an answer, right or wrong.

    Of tasks that look for answers in texts by a pattern. A text without one counts as wrong in other metrics: where
    few have one, these say little of whether the model could have answered.
    """

    name = "answered"
    unit = percent("answered")
    columns = ("extracted",)
    right_or_wrong = True

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where an answer was found, else 0.0."""
        return np.array([float(bool(found)) for found in columns["extracted"]])
