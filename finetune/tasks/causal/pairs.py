"""Pairs of answers to one prompt, in a batch: each is one example that two sequences stand for, the chosen answer's
and then the rejected one's.

Shapes: N pairs; rows and T columns of a batch. A batch of pairs has a ``place`` (rows, T), the position inside the
example, where ``positions`` count from 0 in each sequence.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from finetune.core.examples import Batch
from finetune.tasks.conversation import IGNORED


def together(batch: Batch) -> Batch:
    """Turn a batch of 2N sequences, a chosen answer's and a rejected one's in turn, into one of N pairs."""
    sequence, real = batch.example, batch.example >= 0
    lengths = torch.bincount(sequence[real])
    starts = torch.where(torch.arange(len(lengths), device=real.device) % 2 == 1, lengths.roll(1), 0)
    place = batch.positions + torch.where(real, starts[sequence.clamp(min=0)], 0)
    return replace(batch, example=torch.where(real, sequence // 2, -1), place=place)


def apart(batch: Batch) -> Batch:
    """Turn a batch of N pairs into one of 2N sequences; ``batch`` itself when it holds no pairs."""
    if batch.place is None:
        return batch
    sequence = 2 * batch.example + (batch.place > batch.positions)
    return replace(batch, example=torch.where(batch.example >= 0, sequence, -1), place=None)


def chosen(batch: Batch) -> Batch:
    """Keep the labels of the chosen answers alone; ``batch`` itself when it holds no pairs."""
    if batch.place is None:
        return batch
    rejected = batch.place > batch.positions
    return replace(batch, targets=torch.where(rejected, IGNORED, batch.targets))
