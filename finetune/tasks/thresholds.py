"""Thresholds that are fitted to the predictions for validation examples. Shapes: N examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

USUAL = 0.0
"""The threshold where nothing tells of a better one."""


def best_threshold(margins: ArrayLike, above: ArrayLike, below: ArrayLike) -> float:
    """Find the threshold under which examples score best in all.

    Each of N examples scores ``above`` (N,) where its value in ``margins`` (N,) is larger than the threshold, and
    ``below`` (N,) elsewhere. Thresholds lie halfway between neighbouring margins, or 1 beyond all of them; of equally
    good ones the nearest to :data:`USUAL` is taken, which it stays where it is one of them, and where there are no
    margins that are numbers.
    """
    values, gains = np.asarray(margins, float), np.asarray(above, float) - np.asarray(below, float)
    real = np.isfinite(values)
    if not real.any():
        return USUAL
    order = np.argsort(values[real], kind="stable")
    values, gains = values[real][order], gains[real][order]
    between = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    thresholds = np.sort(np.append(between, USUAL))
    # What all examples above a threshold gain: the sum behind the last one that is not above it.
    sums = np.append(np.cumsum(gains[::-1])[::-1], 0.0)
    gained = sums[np.searchsorted(values, thresholds, side="right")]
    best = thresholds[gained >= gained.max() - 1e-9]
    return float(best[np.argmin(np.abs(best - USUAL))])
