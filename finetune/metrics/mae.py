"""Mean absolute error."""

from __future__ import annotations

from math import inf

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values, numbers
from finetune.metrics.unit import Unit


@METRICS.register
class MAE(MeanMetric):
    """Mean absolute error, in the data's unit."""

    name = "mae"
    unit = Unit("MAE", figures=3, bounds=(0.0, inf))
    higher_is_better = False
    numeric = True

    def per_example(self, columns: Columns) -> Values:
        """Compute each example's absolute error."""
        said, wanted = numbers(columns)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.abs(said - wanted))
