"""Pairs of answers to one prompt, in a batch: each is one example that two sequences stand for, the chosen answer's
and then the rejected one's.

Shapes: N pairs; rows and T columns of a batch. A batch of pairs has `place` (rows, T), the position inside the
example, where `position_ids` count from 0 in each sequence.
"""

from __future__ import annotations

import torch

from finetune.tasks.conversation import IGNORED

Batch = dict[str, torch.Tensor]


def together(batch: Batch) -> Batch:
    """A batch of 2N sequences, a chosen answer's and a rejected one's in turn, as one of N pairs."""
    sequence, real = batch["example"], batch["example"] >= 0
    lengths = torch.bincount(sequence[real])
    starts = torch.where(torch.arange(len(lengths), device=real.device) % 2 == 1, lengths.roll(1), 0)
    place = batch["position_ids"] + torch.where(real, starts[sequence.clamp(min=0)], 0)
    return {**batch, "example": torch.where(real, sequence // 2, -1), "place": place}


def apart(batch: Batch) -> Batch:
    """The same batch as one of 2N sequences; ``batch`` itself when it holds no pairs."""
    if "place" not in batch:
        return batch
    sequence = 2 * batch["example"] + _rejected(batch)
    whole = {name: value for name, value in batch.items() if name != "place"}
    return {**whole, "example": torch.where(batch["example"] >= 0, sequence, -1)}


def chosen(batch: Batch) -> Batch:
    """The same batch with the chosen answers' labels alone; ``batch`` itself when it holds no pairs."""
    if "place" not in batch:
        return batch
    return {**batch, "targets": torch.where(_rejected(batch), IGNORED, batch["targets"])}


def _rejected(batch: Batch) -> torch.Tensor:
    """Where rejected answers' sequences stand: (rows, T), boolean."""
    return batch["place"] > batch["position_ids"]
