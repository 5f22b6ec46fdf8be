"""Root mean squared error."""

from __future__ import annotations

from math import inf
from typing import ClassVar

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values, numbers
from finetune.metrics.unit import Unit


@METRICS.register
class RMSE(Metric):
    """Root of the mean squared error, in the data's unit."""

    name = "rmse"
    unit = Unit("RMSE", figures=3, bounds=(0.0, inf))
    higher_is_better = False
    hub: ClassVar = {"type": "mse", "args": {"squared": False}}
    numeric = True

    def value(self, columns: Columns) -> float:
        """Compute the root."""
        said, wanted = numbers(columns)
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.sqrt(np.mean((said - wanted) ** 2)))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds to the root θ: θ + (e² - θ²) / 2θ of its error e; all 0 where θ is."""
        said, wanted = numbers(columns)
        value = self.value(columns)
        if value == 0:
            return np.zeros(len(said))
        return np.asarray(value + ((said - wanted) ** 2 / value - value) / 2)
