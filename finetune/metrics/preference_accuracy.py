"""Preference accuracy."""

from __future__ import annotations

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import percent


@METRICS.register
class PreferenceAccuracy(MeanMetric):
    """Share of chosen answers likelier than the rejected.

    By log-likelihoods summed over tokens, of the model alone, without a reference model: so the untuned base model
    has one too. As sums, they favour shorter answers, in every model alike.
    """

    name = "preference_accuracy"
    unit = percent("preference accuracy")
    columns = ("margin",)
    right_or_wrong = True

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where the margin is positive, else 0.0."""
        return (np.asarray(columns["margin"], dtype=float) > 0).astype(float)
