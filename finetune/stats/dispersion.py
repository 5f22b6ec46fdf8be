"""Whose seeds scatter more: a test of two spreads, and their ratio with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from finetune.stats.estimates import Interval

Scores = NDArray[np.float64]
SpreadVerdict = Literal["more stable", "less stable", "undecided"]


@dataclass(frozen=True)
class Dispersion:
    """The left's SD over seeds divided by the right's. What the seeds do not allow is None."""

    ratio: float | None = None
    ci: Interval | None = None
    p_value: float | None = None
    """Brown and Forsythe's (1974): Levene's test around the medians."""


def dispersion(left: ArrayLike, right: ArrayLike, level: float = 0.95) -> Dispersion:
    """Compare the spread of ``left`` (m,) and ``right`` (n,), one score per seed each, in the same unit.

    The test is robust: where both spread alike, it finds a difference at 0.05 in 0 % of samples at 3 seeds, 0.6 % at
    5, and 4 % at 10 and 20, with normal and heavy-tailed scores alike. The ratio's interval is that of Fisher's F with
    degrees of freedom lowered where the scores have heavier tails than normal ones (Shoemaker, The American
    Statistician 2003, with scores standardised first). It covers 95 to 96 % at 3 to 20 seeds where scores are normal,
    90 % where they are t with 5 degrees of freedom, and only half at 5 seeds where every seventh run collapses: five
    seeds do not show how rare a collapse is. Both have to agree before a verdict; see :func:`spread_verdict`.
    None with fewer than two seeds on a side, or where a side has no spread to divide by.
    """
    one, other = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    if min(len(one), len(other)) < 2:
        return Dispersion()
    p_value = _brown_forsythe(one, other)
    if min(np.ptp(one), np.ptp(other)) <= 1e-12 * max(np.abs(one).max(), np.abs(other).max()):
        return Dispersion(p_value=p_value)
    ratio = float(one.std(ddof=1) / other.std(ddof=1))
    df_left, df_right = _degrees(one, other)
    tail = (1 + level) / 2
    low = ratio / float(special.fdtri(df_left, df_right, tail)) ** 0.5
    high = ratio * float(special.fdtri(df_right, df_left, tail)) ** 0.5
    return Dispersion(ratio, (low, high), p_value)


def _brown_forsythe(one: Scores, other: Scores) -> float | None:
    """Test whether two sides scatter alike: the pooled t-test of the distances from each side's median."""
    left, right = np.abs(one - np.median(one)), np.abs(other - np.median(other))
    df = len(left) + len(right) - 2
    squares = float(((left - left.mean()) ** 2).sum() + ((right - right.mean()) ** 2).sum())
    error = (squares / df * (1 / len(left) + 1 / len(right))) ** 0.5
    if error <= 1e-12 * max(left.max(), right.max()):
        return None  # distances without spread, as with two seeds a side, would give p = 0
    return 2 * float(special.stdtr(df, -abs(left.mean() - right.mean()) / error))


def _degrees(one: Scores, other: Scores) -> tuple[float, float]:
    """Estimate the degrees of freedom of each side's variance, n - 1 at most, from the kurtosis of both together."""
    standard = np.concatenate([(side - side.mean()) / side.std(ddof=1) for side in (one, other)])
    kurtosis = float((standard**4).mean() / (standard**2).mean() ** 2)
    left, right = (
        min(n - 1, 2 * n / excess) if (excess := kurtosis - (n - 3) / (n - 1)) > 0 else n - 1
        for n in (len(one), len(other))
    )
    return left, right


def spread_verdict(ci: Interval | None, p_adjusted: float | None, level: float = 0.95) -> SpreadVerdict:
    """Decide whether the left is more or less stable: only if adjusted p-value and the ratio's interval agree on it."""
    if ci is None or p_adjusted is None or p_adjusted >= 1 - level or ci[0] <= 1 <= ci[1]:
        return "undecided"
    return "more stable" if ci[1] < 1 else "less stable"
