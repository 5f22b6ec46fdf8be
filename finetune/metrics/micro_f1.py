"""Micro F1 of label sets."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.label_sets import marks
from finetune.metrics.unit import percent


@METRICS.register
class MicroF1(Metric):
    """F1 over all labels of all examples together: of label sets, twice the hits by the labels said and wanted.

    0 where no label is said or wanted anywhere.
    """

    name = "micro_f1"
    unit = percent("micro-F1")
    hub: ClassVar = {"type": "f1", "args": {"average": "micro"}}
    of = frozenset(("labels",))

    def value(self, columns: Columns) -> float:
        """Compute the F1, by scikit-learn."""
        from sklearn.metrics import f1_score

        said, wanted = marks(columns)
        if not said.any() and not wanted.any():
            return 0.0
        width = max(2, said.shape[1])  # one column would be taken for one label of two
        padded = (np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in (wanted, said))
        return float(f1_score(*padded, average="micro", zero_division=0))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds: F1 = 2 hits / (said + wanted)."""
        said, wanted = marks(columns)
        hits, counted = (said & wanted).sum(1), said.sum(1) + wanted.sum(1)
        if not counted.any():
            return np.zeros(len(said))
        value = 2 * hits.sum() / counted.sum()
        return np.asarray(value + len(said) * (2 * hits - value * counted) / counted.sum())
