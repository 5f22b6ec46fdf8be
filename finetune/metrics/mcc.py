"""Matthews correlation."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values, codes
from finetune.metrics.unit import Unit


@METRICS.register
class MCC(Metric):
    """Matthews correlation for any number of labels, in [-1, 1]; 0 when only one label occurs.

    Gorodkin 2004. Undefined when all predictions, or all references, are one label; 0 then, by convention.
    """

    name = "mcc"
    unit = Unit("MCC", point=0.01, bounds=(-1.0, 1.0))
    hub: ClassVar = {"type": "matthews_correlation"}
    of = frozenset(("label", "choice", "text"))
    by_equality = True
    of_answers = True

    def value(self, columns: Columns) -> float:
        """Compute the correlation, by scikit-learn."""
        from sklearn.metrics import matthews_corrcoef

        said, wanted = columns["prediction"], columns["reference"]
        if len(set(said)) == 1 or len(set(wanted)) == 1:
            return 0.0
        return float(matthews_corrcoef(wanted, said))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds, from hits and the counts of each label; 0 everywhere where undefined."""
        labels = np.unique([*columns["reference"], *columns["prediction"]])
        true, predicted = codes(columns["reference"], labels), codes(columns["prediction"], labels)
        n, hit = float(len(true)), true == predicted
        support = np.bincount(true, minlength=len(labels)).astype(float)
        said = np.bincount(predicted, minlength=len(labels)).astype(float)
        covariance = hit.sum() * n - support @ said
        spread_said, spread_true = n**2 - said @ said, n**2 - support @ support
        if spread_said == 0 or spread_true == 0:
            return np.zeros(len(true))
        value = covariance / np.sqrt(spread_said * spread_true)
        change = (n * hit + hit.sum() - support[predicted] - said[true]) / np.sqrt(spread_said * spread_true)
        change -= value * ((n - said[predicted]) / spread_said + (n - support[true]) / spread_true)
        return np.asarray(value + n * change)
