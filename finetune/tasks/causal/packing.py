"""Several examples in one row, so that little of a batch is padding.

Shapes: N examples; rows and T columns of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch

from finetune.core.examples import Batch
from finetune.tasks.conversation import IGNORED


def fill_rows(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Choose which examples stand in which row of ``width`` tokens: each in the first with room, the longest first.

    First-fit decreasing needs at most 11/9 as many rows as the best packing, and one more (Johnson 1973).
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        row = next((row for row, left in enumerate(room) if left >= lengths[index]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(width)
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows


def packed_rows(lengths: Sequence[int], counts: Sequence[int]) -> list[list[int]]:
    """Choose the same for examples that come replica by replica, ``counts`` of each: no row mixes replicas."""
    width, ends = max(lengths), list(accumulate(counts))
    return [
        [end - count + index for index in row]
        for count, end in zip(counts, ends, strict=True)
        for row in fill_rows(lengths[end - count : end], width)
    ]


def lay_out(
    rows: Sequence[Sequence[int]], ids: Sequence[np.ndarray], targets: Sequence[np.ndarray], filler: int
) -> Batch:
    """Lay out examples side by side in ``rows``, with `input_ids` and `position_ids`.

    Positions count from 0 in each example. Padding is example -1 and counts on from what stands before it: whatever
    it sees, nobody looks at it, and a row of one example stays a plain sequence.
    """
    width = max(sum(len(ids[index]) for index in row) for row in rows)
    shape = (len(rows), width)
    tokens, example, labels = (np.full(shape, value, dtype=np.int64) for value in (filler, -1, IGNORED))
    positions = np.tile(np.arange(width), (len(rows), 1))
    for number, row in enumerate(rows):
        start = 0
        for index in row:
            stop = start + len(ids[index])
            tokens[number, start:stop] = ids[index]
            positions[number, start:] = np.arange(width - start)
            example[number, start:stop] = index
            labels[number, start:stop] = targets[index]
            start = stop
    inputs = {"input_ids": torch.from_numpy(tokens), "position_ids": torch.from_numpy(positions)}
    return Batch(inputs, torch.from_numpy(labels), torch.from_numpy(example))


def with_mask(batch: Batch) -> Batch:
    """Add to a batch of one example a row the mask that says where padding is."""
    return replace(batch, inputs={**batch.inputs, "attention_mask": (batch.example >= 0).long()})


def unpacked(batch: Batch, filler: int = 0) -> Batch:
    """Lay out the same examples, in their order, one a row and padded at the right with ``filler``; ``batch`` itself
    when it is so already."""
    if "attention_mask" in batch.inputs:
        return batch
    real = batch.example >= 0
    place = batch.example[real], batch.positions[real]
    shape = int(place[0].max()) + 1, int(place[1].max()) + 1
    positions = torch.arange(shape[1], device=real.device).expand(shape)

    def moved(values: torch.Tensor, empty: int) -> torch.Tensor:
        found = torch.full(shape, empty, device=real.device)
        found[place] = values[real]
        return found

    inputs = {"input_ids": moved(batch.inputs["input_ids"], filler), "position_ids": positions}
    return with_mask(Batch(inputs, moved(batch.targets, IGNORED), moved(batch.example, -1)))
