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
    """Share of examples whose predicted rank, which counts from 1, is at most :attr:`most`."""

    columns = ("prediction",)
    right_or_wrong = True
    most: ClassVar[int]

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where the rank is among the first, else 0.0."""
        return np.array([float(number_of(text) <= self.most) for text in columns["prediction"]])
