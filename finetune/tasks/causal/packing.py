"""Several examples in one row, so that little of a batch is padding.

Shapes: N examples; rows and T columns of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from finetune.tasks.conversation import IGNORED


def fill_rows(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Which examples stand in which row of ``width`` tokens: each in the first row that has room, the longest first.

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
    """The same for examples that come replica by replica, ``counts`` of each: no row mixes replicas."""
    width, ends = max(lengths), list(accumulate(counts))
    return [
        [end - count + index for index in row]
        for count, end in zip(counts, ends, strict=True)
        for row in fill_rows(lengths[end - count : end], width)
    ]


def lay_out(
    rows: Sequence[Sequence[int]], ids: Sequence[np.ndarray], targets: Sequence[np.ndarray], filler: int
) -> dict[str, torch.Tensor]:
    """Examples side by side in ``rows``: `input_ids`, `targets`, `position_ids` and `example`, each (rows, T).

    Positions count from 0 in each example. Padding is example -1 and counts on from what stands before it: whatever
    it sees, nobody looks at it, and a row of one example stays a plain sequence.
    """
    width = max(sum(len(ids[index]) for index in row) for row in rows)
    shape = (len(rows), width)
    batch = {
        "input_ids": np.full(shape, filler, dtype=np.int64),
        "position_ids": np.tile(np.arange(width), (len(rows), 1)),
        "example": np.full(shape, -1, dtype=np.int64),
        "targets": np.full(shape, IGNORED, dtype=np.int64),
    }
    for number, row in enumerate(rows):
        start = 0
        for index in row:
            stop = start + len(ids[index])
            batch["input_ids"][number, start:stop] = ids[index]
            batch["position_ids"][number, start:] = np.arange(width - start)
            batch["example"][number, start:stop] = index
            batch["targets"][number, start:stop] = targets[index]
            start = stop
    return {name: torch.from_numpy(value) for name, value in batch.items()}


def with_mask(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of one example a row, with the mask that says where padding is."""
    return {**batch, "attention_mask": (batch["example"] >= 0).long()}


def unpacked(batch: dict[str, torch.Tensor], filler: int = 0) -> dict[str, torch.Tensor]:
    """The same examples, in their order, one a row and padded at the right with ``filler``; ``batch`` itself when it
    is so already."""
    if "attention_mask" in batch:
        return batch
    real = batch["example"] >= 0
    place = batch["example"][real], batch["position_ids"][real]
    shape = int(place[0].max()) + 1, int(place[1].max()) + 1
    positions = torch.arange(shape[1], device=real.device).expand(shape)
    apart = {"input_ids": positions, "position_ids": positions}
    for name, empty in (("input_ids", filler), ("example", -1), ("targets", IGNORED)):
        apart[name] = torch.full(shape, empty, device=real.device)
        apart[name][place] = batch[name][real]
    return with_mask(apart)
