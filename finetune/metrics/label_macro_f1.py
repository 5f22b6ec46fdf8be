"""Macro F1 of label sets."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.label_sets import marks
from finetune.metrics.unit import percent


@METRICS.register
class LabelMacroF1(Metric):
    """Mean over labels of the F1 of saying each: of label sets, the labels that occur in the references.

    As in macro F1 of one label, the mean is over the same labels in every run, whatever a run predicts; a label that
    is never said has an F1 of 0. 0 where no reference has a label.
    """

    name = "label_macro_f1"
    unit = percent("macro-F1 of labels")
    hub: ClassVar = {"type": "f1", "args": {"average": "macro"}}
    of = frozenset(("labels",))

    def value(self, columns: Columns) -> float:
        """Compute the mean of the labels' F1, by scikit-learn."""
        from sklearn.metrics import f1_score

        said, wanted = marks(columns)
        occur = np.flatnonzero(wanted.any(0))
        if not len(occur):
            return 0.0
        by_label = [f1_score(wanted[:, place], said[:, place], zero_division=0) for place in occur]
        return float(np.mean(by_label))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds: F1 = 2 hits / (said + wanted) by label, averaged over labels."""
        said, wanted = marks(columns)
        occur = wanted.any(0)
        if not occur.any():
            return np.zeros(len(said))
        said, wanted = said[:, occur], wanted[:, occur]
        counted = said.sum(0) + wanted.sum(0)
        f1 = 2 * (said & wanted).sum(0) / counted
        own = 2 * (said & wanted) - f1 * (said.astype(int) + wanted)
        return np.asarray(f1.mean() + len(said) * (own / counted).mean(1))
