"""Pearson's correlation."""

from __future__ import annotations

from typing import ClassVar

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values, numbers
from finetune.metrics.correlation import added, correlation
from finetune.metrics.unit import Unit


@METRICS.register
class Pearson(Metric):
    """Pearson's correlation of predicted and right numbers, in [-1, 1]; 0 when one of the two is constant.

    That of a constant is undefined. It is 0 here, by convention as with the Matthews correlation: a model that always
    says the same has told nothing apart, and a run without a score would drop out of the comparison. Neither the unit
    nor the mean of the predictions counts.
    """

    name = "pearson"
    unit = Unit("Pearson", point=0.01, bounds=(-1.0, 1.0))
    hub: ClassVar = {"type": "pearsonr"}
    numeric = True

    def value(self, columns: Columns) -> float:
        """Compute the correlation."""
        return correlation(*numbers(columns))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds, from sums over examples; 0 everywhere where undefined."""
        return added(*numbers(columns))
