"""Exact match, as SQuAD counts it."""

from __future__ import annotations

from typing import ClassVar

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.spans import best, same
from finetune.metrics.unit import percent


@METRICS.register
class SquadEm(MeanMetric):
    """Share of answers equal to one that is right, by SQuAD's rules.

    Rajpurkar et al. 2016, section 6.1, and 2018: small and capital letters, punctuation, articles and white space
    aside. Where the text has no answer, saying so is right.
    """

    name = "squad_em"
    unit = percent("exact match")
    hub: ClassVar = {"type": "exact_match"}
    right_or_wrong = True

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where the prediction is one of the right answers, else 0.0."""
        return best(columns, same)
