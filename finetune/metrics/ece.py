"""The expected calibration error."""

from __future__ import annotations

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.calibrated import Bins, by_width, stored
from finetune.metrics.unit import Unit


@METRICS.register
class ECE(Metric):
    """Gap between how sure of its likeliest label a model is and how often that is right, over 15 bins of equal width.

    Guo et al. 2017, section 2: the mean of the bins' gaps, by examples. With few examples it is biased upwards; the
    report's calibration section says by how much.
    """

    name = "ece"
    unit = Unit("ECE", bounds=(0.0, 1.0))
    higher_is_better = False
    columns = ("probabilities", "reference", "labels")

    def value(self, columns: Columns) -> float:
        """Compute the mean gap of the bins."""
        return self._bins(columns).error

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds: its own gap, with the sign that its bin's has. They are the influence values
        where no bin's gap is zero; bins stay where they are."""
        return self._bins(columns).gaps

    @staticmethod
    def _bins(columns: Columns) -> Bins:
        probabilities, right = stored(columns)
        return by_width(probabilities.max(axis=1), probabilities.argmax(axis=1) == right)
