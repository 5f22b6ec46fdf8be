"""Intervals from leaving one unit out at a time: a run, an example, or a cluster of examples (Tukey 1958; Efron and
Tibshirani 1993, chapter 11). For a plain mean they are Student's t interval, so they hold at five seeds too, where
resampling does not."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.stats.estimates import Interval, t_interval


def interval(value: float, left_out: ArrayLike, level: float = 0.95) -> Interval:
    """Compute Student's t interval of a statistic; ``left_out`` (units,) has it without each of n >= 2 units."""
    rest = np.asarray(left_out, dtype=float)
    low, high = t_interval(value, _sd(rest), len(rest), level)
    return float(low), float(high)


def share_interval(value: float, left_out: ArrayLike, level: float = 0.95) -> Interval | None:
    """The same of a share, on the scale of its log odds, so that it stays between 0 and 1 and leans the right way.

    None at 0 and at 1, and where it is the same without any unit: then the units do not say how far off it may be.
    """
    rest = np.asarray(left_out, dtype=float)
    sd = _sd(rest)
    if sd == 0 or not 1e-12 < value < 1 - 1e-12:
        return None
    odds = np.log(value / (1 - value))
    bounds = t_interval(odds, sd / (value * (1 - value)), len(rest), level)
    low, high = (float(1 / (1 + np.exp(-bound))) for bound in bounds)
    return low, high


def _sd(left_out: NDArray[np.float64]) -> float:
    """Compute the SD of pseudo-values n * value - (n - 1) * left_out; zero where only rounding tells them apart."""
    if np.ptp(left_out) <= 1e-12 * np.abs(left_out).max():
        return 0.0
    return float((len(left_out) - 1) * left_out.std(ddof=1))
