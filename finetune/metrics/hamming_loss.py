"""Hamming loss of label sets."""

from __future__ import annotations

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.label_sets import marks
from finetune.metrics.unit import Unit


@METRICS.register
class HammingLoss(MeanMetric):
    """Share of all labels of all examples that are missing or superfluous in a label set."""

    name = "hamming_loss"
    unit = Unit("Hamming loss", bounds=(0.0, 1.0))
    higher_is_better = False
    columns = ("prediction", "reference", "labels")
    of = frozenset(("labels",))

    def per_example(self, columns: Columns) -> Values:
        """Compute the share of the labels, those that the task knows and others that occur, that are wrong."""
        said, wanted = marks(columns, columns["labels"])
        return np.asarray((said != wanted).mean(1)) if said.shape[1] else np.zeros(len(said))
