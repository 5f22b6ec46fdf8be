"""Reward margin."""

from __future__ import annotations

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import Unit


@METRICS.register
class RewardMargin(MeanMetric):
    """Reward of the chosen answer less that of the rejected, a mean over pairs, in nats times beta.

    Rewards are log-ratios of the model and the untuned one, times the strategy's beta (Rafailov et al. 2023, section
    4): what trl calls rewards/margins. Variants of different beta are not to be compared by it.
    """

    name = "reward_margin"
    unit = Unit("reward margin")
    columns = ("reward",)

    def per_example(self, columns: Columns) -> Values:
        """Read the stored differences."""
        return np.array(columns["reward"], dtype=float)
