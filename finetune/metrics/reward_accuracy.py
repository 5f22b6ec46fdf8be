"""Reward accuracy."""

from __future__ import annotations

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import percent


@METRICS.register
class RewardAccuracy(MeanMetric):
    """Share of chosen answers that training has made likelier, compared with the untuned model, than the rejected.

    What trl calls rewards/accuracies. The untuned model is ahead of itself nowhere, and so has 0 %; pairs that it tells
    apart already count only where training has told them further apart.
    """

    name = "reward_accuracy"
    unit = percent("reward accuracy")
    columns = ("reward",)
    right_or_wrong = True

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where the chosen answer has the larger reward, else 0.0."""
        return (np.asarray(columns["reward"], dtype=float) > 0).astype(float)
