"""The test of the leader: how far it has to be ahead of all others to be seen as the best.

A variant is not the best unless it beats *all* others, so that each of these may be tested on its own level (Berger
1982; see :func:`~finetune.stats.judging.judge`). What such a test can see is not what one comparison can: all have to
pass. Beside it the leader's pairs are judged with the family of all pairs, and either is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import brentq

from finetune.stats.families import Family, Several
from finetune.stats.multibootstrap import Uncertainty

LEADER_SHARE = 0.9
"""Share of the error that the test of the leader may use; see :func:`~finetune.stats.judging.family_share`."""

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
"""Of Gauss-Hermite quadrature over a standard normal; the weights add up to sqrt(2 pi)."""

QUANTILES = (np.arange(40) + 0.5) / 40
"""Of the standard error's distribution over which chances are averaged: they are then right to 0.2 points."""


@dataclass(frozen=True)
class Leader:
    """The leader of so many ``variants``, held against each of the others alone."""

    variants: int

    def __str__(self) -> str:
        return f"the leader of {self.variants} variants against each of the others (Berger)"

    def tail(self, t: float, df: float, of_seeds: bool = True) -> float:
        return min(1.0, Several().tail(t, df, of_seeds) / LEADER_SHARE)


@dataclass(frozen=True)
class Lead:
    """The two tests of a leader's pair: its own (``alone``), with that of every other variant, or the family's."""

    alone: Uncertainty
    leader: Leader
    together: Uncertainty
    family: Family
    level: float = 0.95

    def least(self, difference: float) -> float:
        """The lower end of its lead by the leader's own test; below zero where it need not be ahead."""
        return abs(difference) - self.alone.half_width(self.level, self.leader)

    def p_value(self, difference: float) -> float:
        """Compute the two-sided p-value of the leader's own test."""
        return self.alone.p_value(difference, self.leader)

    def power(self, difference: float) -> float:
        """Compute the chance that the pair is told apart where the leader is ``difference`` ahead of all others.

        With shift d = difference / se, bounds b and f of the two tests, and k others, the leader's mean and the
        others' vary alike, so that the statistics are (d + (z0 + zj) / sqrt(2)) / s, all z standard normal and s^2 a
        chi-square over its degrees of freedom: Dunnett's distribution ("A multiple comparison procedure for comparing
        several treatments with a control", Journal of the American Statistical Association 1955). Given z0 and s the
        others are independent, each above a bound with a chance of Phi(sqrt(2) (d - b s) + z0). Several sources of
        noise are weighted as in :class:`~finetune.stats.multibootstrap.Uncertainty`.
        """
        bounds = self._bounds()
        shift = abs(difference) / self.alone.se
        return sum(share * _chance(shift, df, *bounds, self.leader.variants - 1) for share, df in self._sources())

    def detectable(self, power: float) -> float:
        """The smallest lead over all others that is seen with a chance of ``power``; endless where none is."""
        if not np.isfinite(self._bounds()[0]):
            return float("inf")
        high = 4 * self.alone.se
        while self.power(high) < power:
            high *= 2
        return float(brentq(lambda difference: self.power(difference) - power, 0.0, high, rtol=1e-4))

    def _bounds(self) -> tuple[float, float]:
        """The bounds of both tests, in standard errors of the leader's own."""
        tests = ((self.alone, self.leader), (self.together, self.family))
        alone, together = (noise.half_width(self.level, family) / self.alone.se for noise, family in tests)
        return alone, together

    def _sources(self) -> list[tuple[float, float]]:
        """The share of the variance and the degrees of freedom of each source of noise."""
        noise, parts = self.alone, self.alone.seeds + self.alone.examples
        sources = ((noise.seeds, noise.df_seeds), (noise.examples, noise.df_examples))
        return [(part / parts, df) for part, df in sources if part > 0]


def _chance(shift: float, df: float, bound: float, of_family: float, others: int) -> float:
    """The chance that all of ``others`` are above ``bound``, or a given one above ``of_family``."""
    scale = _scales(df)[:, None]
    above, far = (special.ndtr(np.sqrt(2) * (shift - each * scale) + NODES) for each in (bound, of_family))
    either = above**others + far - np.minimum(above, far) * above ** (others - 1)
    return float(np.mean(either @ WEIGHTS) / WEIGHTS.sum())


def _scales(df: float) -> NDArray[np.float64]:
    """Estimated standard errors over the true one, at :data:`QUANTILES` of their distribution."""
    return np.asarray(np.sqrt(special.chdtri(df, 1 - QUANTILES) / df))
