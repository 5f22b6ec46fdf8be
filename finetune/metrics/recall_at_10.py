"""Recall among the first 10."""

from __future__ import annotations

from finetune.core.registry import METRICS
from finetune.metrics.ranks import RecallAt
from finetune.metrics.unit import percent


@METRICS.register
class RecallAt10(RecallAt):
    """Share of texts whose right answer is among the first 10 of the set, by similarity."""

    name = "recall_at_10"
    unit = percent("recall@10")
    most = 10
