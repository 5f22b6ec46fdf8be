"""F1 of words, as SQuAD counts it."""

from __future__ import annotations

from typing import ClassVar

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.spans import best, overlap
from finetune.metrics.unit import percent


@METRICS.register
class SquadF1(MeanMetric):
    """Words in common with the answer, F1, by SQuAD's rules, a mean over examples.

    Rajpurkar et al. 2016, section 6.1, and 2018: of several right answers the one that is nearest counts. Where the
    text has no answer, saying so is 1 and anything else 0.
    """

    name = "squad_f1"
    unit = percent("F1")
    hub: ClassVar = {"type": "f1"}

    def per_example(self, columns: Columns) -> Values:
        """Compute the F1 of each prediction's words, in [0, 1]."""
        return best(columns, overlap)
