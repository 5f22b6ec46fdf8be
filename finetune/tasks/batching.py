"""The sharing of a pass through a model among examples, so that each one's outputs are what they are alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum

import numpy as np


class Batching(IntEnum):
    """The things that examples may share, from most to least."""

    PACKED = 0
    """Rows: several examples in one, which do not see each other."""
    PADDED = 1
    """Batches of one example a row, filled up where another is longer."""
    SAME_LENGTH = 2
    """Batches of equally long examples, for models that see padding."""
    SINGLE = 3
    """Nothing."""

    def __str__(self) -> str:
        return ("packed", "one example a row", "one length a batch", "one example at a time")[self]


def cut(order: np.ndarray, lengths: Sequence[int] | np.ndarray, size: int, batching: Batching) -> Iterator[np.ndarray]:
    """Cut the examples that ``order`` names, which is by their ``lengths``, into batches of at most ``size``, in that
    order."""
    same = [order]
    if batching >= Batching.SAME_LENGTH:
        same = np.split(order, np.flatnonzero(np.diff(np.asarray(lengths)[order])) + 1)
    size = 1 if batching == Batching.SINGLE else size
    for run in same:
        yield from (run[start : start + size] for start in range(0, len(run), size))
