"""Entity F1."""

from __future__ import annotations

from typing import ClassVar

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.entities import counts
from finetune.metrics.sums import ratio_of_sums
from finetune.metrics.unit import percent


@METRICS.register
class EntityF1(Metric):
    """F1 of entities over all examples: one counts where its words and its type are exactly those wanted.

    Predictions and references are tags joined by spaces. Twice the entities that are found, by those said and those
    wanted together: the micro average. Tags are read as CoNLL-2003's script reads them (Tjong Kim Sang and De Meulder
    2003), which is seqeval's default. It is 0 where there are no entities at all.
    """

    name = "entity_f1"
    unit = percent("entity F1")
    hub: ClassVar = {"type": "f1", "config": "seqeval"}

    def value(self, columns: Columns) -> float:
        """Compute F1 from the sums over examples."""
        found, said, wanted = counts(columns).sum(axis=0)
        return float(2 * found / (said + wanted)) if said + wanted else 0.0

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds to the ratio of the sums."""
        found, said, wanted = counts(columns).T
        return ratio_of_sums(2.0 * found, 1.0 * (said + wanted))
