"""Subset accuracy of label sets."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.label_sets import read
from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import percent


@METRICS.register
class SubsetAccuracy(MeanMetric):
    """Share of examples whose whole set of labels is right: none missing, none superfluous."""

    name = "subset_accuracy"
    unit = percent("subset accuracy")
    hub: ClassVar = {"type": "accuracy"}
    of = frozenset(("labels",))
    right_or_wrong = True

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where the two sets are the same, else 0.0."""
        pairs = zip(columns["prediction"], columns["reference"], strict=True)
        return np.array([float({*read(said)} == {*read(wanted)}) for said, wanted in pairs])
