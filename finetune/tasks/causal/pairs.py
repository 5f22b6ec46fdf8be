"""Pairs of answers to one prompt, in a batch: each is one example that two sequences stand for, the chosen answer's
and then the rejected one's.

Shapes: N pairs; rows and T columns of a batch. A batch of pairs has a ``place`` (rows, T), the position inside the
example, where ``positions`` count from 0 in each sequence.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from finetune.core.examples import Batch, Example
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


def label_counts(batch: Batch) -> torch.Tensor:
    """Count the tokens that are learnt in each pair's chosen and rejected answer: (N, 2)."""
    alone = apart(batch)
    learnt = alone.example[alone.targets != IGNORED]
    return torch.bincount(learnt, minlength=2 * batch.count).view(-1, 2)


def mismatched(asked: Example, answered: Example) -> Example:
    """Make a pair of one pair's prompt and another one's answers. Where that is longer than either of them was, the
    prompt loses its beginning."""
    assert asked.prompt is not None and answered.prompt is not None, "pairs have prompts"
    begin, ids, targets = len(answered.prompt), [], []
    limit = max(len(part) for each in (asked, answered) for part in each.parts(each.inputs["input_ids"]))
    for own in answered.parts(answered.inputs["input_ids"]):
        ids.append(np.concatenate([asked.prompt, own[begin:]])[-limit:])
        learnt = len(own[begin:])
        targets.append(np.where(np.arange(len(ids[-1])) < len(ids[-1]) - learnt, IGNORED, ids[-1]).astype(np.int64))
        targets[-1][0] = IGNORED  # nothing comes before it
    inputs = {"input_ids": np.concatenate(ids)}
    return replace(asked, inputs=inputs, target=np.concatenate(targets), rejected=len(ids[0]), origin=None)
