"""Recall among the first 5."""

from __future__ import annotations

from finetune.core.registry import METRICS
from finetune.metrics.ranks import RecallAt
from finetune.metrics.unit import percent


@METRICS.register
class RecallAt5(RecallAt):
    """Share of texts whose right answer is among the first 5 of the set, by similarity."""

    name = "recall_at_5"
    unit = percent("recall@5")
    most = 5
