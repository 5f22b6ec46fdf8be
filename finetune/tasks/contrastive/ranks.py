"""The rank of what is right for each text among all that it is compared with in its set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

BLOCK = 512
"""Texts that are compared with all at once."""

CLOSE = 1e-6
"""Similarities that differ by no more are equal: by how much rounding may differ from one batch to another."""


def ranks(
    similar: Callable[[slice], NDArray[np.floating]], codes: NDArray[np.float64], itself: bool
) -> NDArray[np.int64]:
    """Rank the best of what is right for each of n texts: (n,), from 1.

    ``similar`` gives the similarities of some texts with all n candidates, (some, n); ``codes`` (n,) are equal where a
    candidate is right for a text. ``itself``: whether a text's own candidate counts; else it is left out. Wrong
    candidates that are as similar come first: what gives all texts one vector is right by no means. Where nothing is
    right the rank is n.
    """
    n, found = len(codes), []
    for start in range(0, n, BLOCK):
        some = slice(start, min(start + BLOCK, n))
        values = np.array(similar(some), dtype=np.float64)
        own = np.arange(some.start, some.stop)
        right = codes[some, None] == codes[None, :]
        wrong = ~right
        if not itself:
            right[np.arange(len(own)), own] = False
        best = np.where(right, values, -np.inf).max(1)
        before = (wrong & (values >= best[:, None] - CLOSE)).sum(1)
        found.append(np.where(right.any(1), 1 + before, n))
    return np.concatenate(found).astype(np.int64) if found else np.empty(0, np.int64)
