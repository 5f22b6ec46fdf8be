"""Rank correlation of similarities."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.ranks import number_of
from finetune.metrics.unit import Unit


@METRICS.register
class CosineSpearman(Metric):
    """Spearman's rank correlation of predicted cosine similarities with the scores that people gave, in [-1, 1].

    Ties share their mean rank. Undefined, and 0 by convention, where all predictions or all references are equal, or
    one of them is no number.
    """

    name = "cosine_spearman"
    unit = Unit("Spearman of cosine", point=0.01, bounds=(-1.0, 1.0))
    numeric = True
    hub: ClassVar = {"type": "spearmanr"}

    def value(self, columns: Columns) -> float:
        """Compute the correlation, by SciPy."""
        from scipy.stats import spearmanr

        said, wanted = _numbers(columns)
        return float(spearmanr(said, wanted).statistic) if _defined(said, wanted) else 0.0

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds: as a point of a correlation of ranks, and by moving the ranks of others."""
        said, wanted = _numbers(columns)
        if not _defined(said, wanted):
            return np.zeros(len(said))
        (first, spread), (second, other) = _ranks(said), _ranks(wanted)
        value = float((first * second).mean())
        change = first * second - value * (first**2 + second**2) / 2
        change += _moved(said, second - value * first) / spread + _moved(wanted, first - value * second) / other
        return np.asarray(value + change)


def _numbers(columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    said, wanted = (np.array([number_of(text) for text in columns[name]]) for name in ("prediction", "reference"))
    return said, wanted


def _defined(said: NDArray[np.float64], wanted: NDArray[np.float64]) -> bool:
    return all(bool(np.isfinite(values).all()) and len(np.unique(values)) > 1 for values in (said, wanted))


def _ranks(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Compute mean ranks, standardised, and their standard deviation."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2)[places]
    spread = float(ranks.std())
    return (ranks - ranks.mean()) / spread, spread


def _moved(values: NDArray[np.float64], slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum for each example the ``slopes`` of those whose rank rises with its weight: of all above it, and half of its
    equals'. (n,)"""
    _, places = np.unique(values, return_inverse=True)
    equal = np.bincount(places, weights=slopes)
    above = equal[::-1].cumsum()[::-1] - equal
    return np.asarray((above + equal / 2)[places])
