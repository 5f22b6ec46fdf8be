"""Mean absolute error of ranks."""

from __future__ import annotations

from math import inf

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.ranked import ranks
from finetune.metrics.unit import Unit


@METRICS.register
class RankMAE(MeanMetric):
    """Mean of how many places the predicted label is from the right one, in the order of the labels."""

    name = "rank_mae"
    unit = Unit("rank MAE", bounds=(0.0, inf))
    higher_is_better = False
    columns = ("prediction", "reference", "labels")
    of = frozenset(("label",))

    def per_example(self, columns: Columns) -> Values:
        """Compute each example's distance, in places."""
        said, wanted = ranks(columns)
        return np.asarray(np.abs(said - wanted))
