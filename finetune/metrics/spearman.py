"""Spearman's rank correlation."""

from __future__ import annotations

from typing import ClassVar

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values, numbers
from finetune.metrics.correlation import added, correlation, moved, ranks
from finetune.metrics.unit import Unit


@METRICS.register
class Spearman(Metric):
    """Spearman's correlation of the ranks of predicted and right numbers, in [-1, 1]; 0 when one of them is constant.

    Equal numbers have the mean of their ranks.
    """

    name = "spearman"
    unit = Unit("Spearman", point=0.01, bounds=(-1.0, 1.0))
    hub: ClassVar = {"type": "spearmanr"}
    numeric = True

    def value(self, columns: Columns) -> float:
        """Compute Pearson's correlation of the ranks."""
        said, wanted = numbers(columns)
        return correlation(ranks(said), ranks(wanted))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds: as for Pearson's correlation of the ranks, and by moving others' ranks.

        An example's weight counts in the sums over ranks, and in the ranks of all examples above it; both are in the
        derivative, which is exact also where numbers are equal. Without ties it is the influence function of Croux &
        Dehon 2010, "Influence functions of the Spearman and Kendall correlation measures", at the observed examples.
        It is a first-order expansion, as others are: right for many examples, and rough for a few dozen.
        """
        said, wanted = numbers(columns)
        one, other = ranks(said), ranks(wanted)
        return added(one, other) + moved(said, one, other) + moved(wanted, other, one)
