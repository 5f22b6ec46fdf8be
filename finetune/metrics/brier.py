"""The Brier score."""

from __future__ import annotations

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.calibrated import squares_of, stored
from finetune.metrics.unit import Unit


@METRICS.register
class Brier(MeanMetric):
    """Mean squared distance of the probabilities from the right label's corner, in [0, 2].

    Brier 1950, the sum over all labels, for two labels too: scikit-learn's `brier_score_loss` halves it there unless
    told `scale_by_half=False`. Where the right answer is none of the labels, it counts as one more whose probability
    is 0.
    """

    name = "brier"
    unit = Unit("Brier score", bounds=(0.0, 2.0))
    higher_is_better = False
    columns = ("probabilities", "reference", "labels")

    def per_example(self, columns: Columns) -> Values:
        """Compute each example's squared distance."""
        return np.asarray(squares_of(*stored(columns)))
