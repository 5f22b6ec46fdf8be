"""Recall of the first."""

from __future__ import annotations

from finetune.core.registry import METRICS
from finetune.metrics.ranks import RecallAt
from finetune.metrics.unit import percent


@METRICS.register
class RecallAt1(RecallAt):
    """Share of texts whose right answer is the first of the set, by similarity."""

    name = "recall_at_1"
    unit = percent("recall@1")
    most = 1
