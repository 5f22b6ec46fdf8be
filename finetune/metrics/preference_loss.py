"""Loss of pairs against the reference."""

from __future__ import annotations

from math import inf

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import Unit


@METRICS.register
class PreferenceLoss(MeanMetric):
    """Loss of pairs against the untuned model, a mean over pairs, in nats: DPO's, whatever the variant has learnt by.

    -log sigmoid(reward margin) (Rafailov et al. 2023, equation 7): log 2 for the untuned model.
    """

    name = "preference_loss"
    unit = Unit("preference loss", bounds=(0.0, inf))
    higher_is_better = False
    columns = ("reward",)

    def per_example(self, columns: Columns) -> Values:
        """Compute the loss of each pair."""
        return np.asarray(np.logaddexp(0.0, -np.asarray(columns["reward"], dtype=float)))
