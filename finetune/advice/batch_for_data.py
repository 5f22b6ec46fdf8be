"""A batch is a small part of the data."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE

LARGEST = 32
"""Examples up to which a batch is small whatever the data."""


@ADVICE.register
class BatchForData(Rule):
    """Let an epoch have ten steps at least, or at least four of a small batch."""

    name = "batch-for-data"
    why = "a batch that is much of the data leaves few steps, and little of the noise by which small batches do better"
    source = "Masters and Luschi 2018, Revisiting Small Batch Training for Deep Neural Networks"

    def look(self, seen: Seen) -> Iterator[Saw]:
        size, epoch = seen.recipe.train.batch_size, seen.steps[0]
        if seen.solved or seen.recipe.train.batch_tokens or epoch >= (10 if size > LARGEST else 4):
            return
        found = f"train.batch_size is {size}, of {seen.examples:,} examples to learn from: {epoch} steps an epoch"
        smaller = max(1, min(size // 2, seen.examples // 10))
        yield Saw(found, f"train.batch_size: {1 << (smaller.bit_length() - 1)}")
