"""Macro F1."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values, codes
from finetune.metrics.unit import percent


@METRICS.register
class MacroF1(Metric):
    """Mean F1 of the labels that occur in the references.

    A label that is predicted but never a reference is not a class of its own (it costs recall, not another 0 in the
    mean): so the mean is over the same labels in every run, whatever a run predicts. A label that is never
    predicted has an F1 of 0.
    """

    name = "macro_f1"
    unit = percent("macro-F1")
    hub: ClassVar = {"type": "f1", "args": {"average": "macro"}}
    of = frozenset(("label", "choice", "text"))
    by_equality = True
    of_answers = True

    def value(self, columns: Columns) -> float:
        """Compute the mean of the labels' F1, by scikit-learn."""
        from sklearn.metrics import f1_score

        said, wanted = columns["prediction"], columns["reference"]
        return float(f1_score(wanted, said, labels=sorted(set(wanted)), average="macro", zero_division=0))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds: F1 = 2 hits / (true + predicted) by label, averaged over labels."""
        labels = np.unique(columns["reference"])
        true, predicted = codes(columns["reference"], labels), codes(columns["prediction"], labels)
        hit = true == predicted
        support = np.bincount(true, minlength=len(labels))
        said = np.bincount(predicted, minlength=len(labels) + 1)[:-1]  # the last stands for all that is no reference
        counted = support + said
        f1 = 2 * np.bincount(true[hit], minlength=len(labels)) / counted
        slope = np.append(f1 / counted, 0.0)  # what one example more among the true, or the predicted, of a label costs
        change = (2 * hit / counted[true] - slope[true] - slope[predicted]) / len(labels)
        return np.asarray(f1.mean() + len(true) * change)
