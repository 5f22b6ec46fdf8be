"""Random order for samples and splits, the same on every machine and with every version of NumPy."""

from __future__ import annotations

import numpy as np

LIMIT, TEST, VALIDATION, TRAIN, SHOTS, MIXTURE = range(6)
"""What a draw is for. Each purpose has a stream of its own, so that asking for one more part moves no other;
each source of a mixture the one after that of the source before."""

ROW_GROUPS = 1 << 16
"""The same: beyond those of any mixture."""


def random_keys(count: int, seed: int, purpose: int) -> np.ndarray:
    """``(count,)`` random uint64, to sort by.

    Raw bits of a bit generator: NumPy promises that those never change, which it does not for ``permutation``.
    """
    return np.random.PCG64(np.random.SeedSequence([seed, purpose])).random_raw(count)
