"""Families of comparisons that are judged together: how far the largest of their t statistics strays by chance.

An interval at the level of its family holds for all of the family at once, and excludes zero exactly where the p-value
of the family is below 1 - level: so interval, p-value and verdict cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.interpolate import PchipInterpolator

from finetune.stats.sequence import anytime_tail

GRID = np.concatenate([np.arange(0.0, 12.0, 0.5), np.arange(12.0, 61.0, 3.0)])
"""Statistics at which the studentized range's tail is computed: each costs some milliseconds, and is needed often."""

FINE = np.linspace(0.0, 60.0, 2401)
"""Those it is drawn out to by cubics: p-values below one half are then right to one in 500."""

SMALLEST = 1e-12
"""Below this the tabulated tail is rounding."""


class Family(Protocol):
    """The family that a comparison is judged in."""

    def tail(self, t: float, df: float, of_seeds: bool = True) -> float:
        """Give the chance that some statistic of the family is at least ``t`` in size, were nothing different.

        ``df`` are the degrees of freedom of its variance, which is the seeds' or the examples'.
        """

    def __hash__(self) -> int:
        """Tell families apart: what was computed for one is kept."""


@dataclass(frozen=True)
class Several:
    """``count`` comparisons, whatever they have to do with each other: Šidák's bound (1967), which is never too low
    for intervals; one comparison is judged on its own."""

    count: int = 1

    def __str__(self) -> str:
        return "judged alone" if self.count == 1 else f"judged together with {self.count - 1} others (Šidák)"

    def tail(self, t: float, df: float, of_seeds: bool = True) -> float:
        alone = 2 * float(special.stdtr(df, -t))
        return -float(np.expm1(self.count * np.log1p(-alone))) if alone < 1 else 1.0


@dataclass(frozen=True)
class AllPairs:
    """All pairs of ``variants``: the studentized range (Tukey 1953; for unequal numbers Kramer 1956)."""

    variants: int

    def __str__(self) -> str:
        return f"judged together with all pairs of {self.variants} variants (Tukey)"

    def tail(self, t: float, df: float, of_seeds: bool = True) -> float:
        if self.variants == 2:
            return Several().tail(t, df)
        table, q = _log_range_tail(self.variants, float(round(df, 1))), t * np.sqrt(2)
        if q <= FINE[-1]:
            return float(np.exp(np.interp(q, FINE, table)))
        return float(np.exp(table[-1]) * special.stdtr(df, -t) / special.stdtr(df, -FINE[-1] / np.sqrt(2)))


@dataclass(frozen=True)
class Part:
    """A ``family`` that may use a ``share`` of the error only, because the rest of it is used elsewhere."""

    family: Family
    share: float

    def __str__(self) -> str:
        return str(self.family)

    def tail(self, t: float, df: float, of_seeds: bool = True) -> float:
        return min(1.0, self.family.tail(t, df, of_seeds) / self.share)


@dataclass(frozen=True)
class Sequential:
    """``count`` comparisons of a study whose seeds were added until something was known: 1 over the e-value, times
    their number, which holds however the study was stopped (see :mod:`finetune.stats.sequence`)."""

    count: int = 1

    def __str__(self) -> str:
        return f"judged together with {self.count - 1} others, by e-values"

    def tail(self, t: float, df: float, of_seeds: bool = True) -> float:
        if not of_seeds:
            return Several(self.count).tail(t, df)
        return min(1.0, self.count * anytime_tail(t, round(df) + 1))


@lru_cache(maxsize=64)
def _log_range_tail(variants: int, df: float) -> NDArray[np.float64]:
    """Tabulate the logarithm of the tail over :data:`FINE`; where it is rounding, it goes on as a t's does."""
    tail = np.asarray(stats.studentized_range.sf(GRID, variants, df), dtype=float)
    tail[0] = 1.0
    last = int(np.flatnonzero(tail > SMALLEST)[-1])
    alone = special.stdtr(df, -GRID / np.sqrt(2))
    tail[last + 1 :] = tail[last] * alone[last + 1 :] / alone[last]
    logs = np.log(np.maximum(np.minimum.accumulate(tail), 1e-300))
    return np.asarray(PchipInterpolator(GRID, logs)(FINE))
