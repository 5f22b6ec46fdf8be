"""The share of examples whose right answer is among the first: what recall at 1, 5 and 10 have in common."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.metrics.base import Columns, MeanMetric, Values


def number_of(text: str) -> float:
    """Read a number that stands in a column of texts; what is none, or is not finite, is NaN."""
    try:
        found = float(text)
    except ValueError:
        return float("nan")
    return found if np.isfinite(found) else float("nan")


class RecallAt(MeanMetric):
    """Share of examples whose predicted rank is less than :attr:`most` from the best, which is the reference: 1."""

    right_or_wrong = True
    numeric = True
    most: ClassVar[int]

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where the rank is among the first, else 0.0."""
        said, wanted = (np.array([number_of(text) for text in columns[name]]) for name in self.columns)
        return np.asarray(np.abs(said - wanted) < self.most, dtype=float)
