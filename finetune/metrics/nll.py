"""Negative log-likelihood of an example."""

from __future__ import annotations

from math import inf

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import Unit


@METRICS.register
class NLL(MeanMetric):
    """Negative log-likelihood of the reference, a mean over examples, in nats."""

    name = "nll"
    unit = Unit("NLL", bounds=(0.0, inf))
    higher_is_better = False
    columns = ("loss",)

    def per_example(self, columns: Columns) -> Values:
        """Read the stored losses."""
        return np.array(columns["loss"], dtype=float)
