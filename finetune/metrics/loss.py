"""Negative log-likelihood of a token."""

from __future__ import annotations

from math import inf

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.sums import ratio_of_sums
from finetune.metrics.unit import Unit


@METRICS.register
class Loss(Metric):
    """Negative log-likelihood of the answers, a mean over tokens of all examples together, in nats."""

    name = "loss"
    unit = Unit("loss", bounds=(0.0, inf))
    higher_is_better = False
    columns = ("loss", "weight")

    def value(self, columns: Columns) -> float:
        """Compute the ratio of sums."""
        return float(np.sum(columns["loss"]) / np.sum(columns["weight"]))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds to the ratio Σ loss / Σ weight."""
        losses, weights = (np.asarray(columns[name], dtype=float) for name in self.columns)
        return ratio_of_sums(losses, weights)
