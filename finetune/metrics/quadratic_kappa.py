"""Cohen's kappa with quadratic weights."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.ranked import ranks
from finetune.metrics.unit import Unit


@METRICS.register
class QuadraticKappa(Metric):
    """Agreement of predicted and right ranks beyond chance, disagreements weighted by their square, in [-1, 1].

    Cohen 1968, "Weighted kappa", over the places of labels in their order. Undefined when all predictions and
    references are one label; 0 then, by convention.
    """

    name = "quadratic_kappa"
    unit = Unit("quadratic kappa", point=0.01, bounds=(-1.0, 1.0))
    columns = ("prediction", "reference", "labels")
    of: ClassVar = frozenset(("label",))

    def value(self, columns: Columns) -> float:
        """Compute kappa, by scikit-learn."""
        from sklearn.metrics import cohen_kappa_score

        said, wanted = (each.astype(int) for each in ranks(columns))
        if len({*said.tolist(), *wanted.tolist()}) == 1:
            return 0.0
        labels = range(max(said.max(), wanted.max()) + 1)
        return float(cohen_kappa_score(said, wanted, labels=labels, weights="quadratic"))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds: kappa = 1 - observed / expected, the sum of squared distances by what it
        would be with the same predictions in any order."""
        said, wanted = ranks(columns)
        n, squares = len(said), (said - wanted) ** 2
        # The mean squared distance of each from all of the other kind.
        to_wanted = said**2 - 2 * said * wanted.mean() + (wanted**2).mean()
        to_said = wanted**2 - 2 * wanted * said.mean() + (said**2).mean()
        expected = to_wanted.mean()
        if expected <= 1e-12:  # where all are one label, but for rounding; the least otherwise is 1 / n
            return np.zeros(n)
        value = 1 - squares.mean() / expected
        # By an example's weight, n d(observed) is its square, and n d(expected) its two distances less their mean.
        return np.asarray(value - squares / expected + (1 - value) * (to_wanted + to_said - expected) / expected)
