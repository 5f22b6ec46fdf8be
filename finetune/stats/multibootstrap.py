"""The uncertainty of a difference over new seeds and new examples: the multi-bootstrap without its draws.

The multi-bootstrap (Sellam et al., "The MultiBERTs", ICLR 2022, section 4) draws seeds and examples with replacement,
together, and looks at the spread of the mean. A mean needs no draws for that. Write x[s, e] = m + a[s] + b[e] + c[s, e]
for seed s of R and example e of n, take for c what seed and example leave over, and endless draws have the variance

    sum a^2 / R^2  +  sum b^2 / n^2  +  sum c^2 / (R n)^2.

With few seeds it is wrong in two ways. The first sum falls short by (R - 1) / R, a third at three seeds. And c, which
the averages a and b hold already, counts three times (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics
2007). So each sum is divided by its degrees of freedom instead, and the last one is *subtracted*, once:

    V = A + B - C,   A = sum a^2 / (R (R - 1)),   B = sum b^2 / (n (n - 1)),   C = sum c^2 / (R (R - 1) n (n - 1)),

unbiased for the variance of the mean over new seeds and new examples (Searle, Casella & McCulloch, Variance
Components, 1992), where B - C is never taken to be below zero. A stands as it is, though C is a part of what it
expects: with three seeds it may be near zero by chance, which the t distribution of so few reckons with, and no less
than C for it would cover 99.7 % in place of 95.5 (300 examples, three seeds, SD 2 points). Where all runs have equal
scores, as coarse ones may, C stands for it; and with two seeds, which are near each other all too often, it is no less.

What to compare m / sqrt(V) with: were all noise the seeds', Student's t with R - 1 degrees of freedom; were all the
examples', that with n - 1. Between the two we take the mixture of both, weighted by their shares of V. Simulated over
all shares, with nominal 95 % the intervals cover 94.9 to 96.5 % at 3 seeds and 95.0 to 96.1 % at 5, and of p-values
below 0.005, which Holm's procedure lives on, there are 0.1 to 0.5 %. Satterthwaite's degrees of freedom, the usual
choice, cover 92.8 % at worst and have 1.9 %: nearly four times too many; plain percentiles of the draws cover 76 % at
3 seeds where the noise is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special
from scipy.optimize import brentq

from finetune.stats.families import Family, Several

Matrix = NDArray[np.float64]

ALONE = Several()
"""The family of a number that is judged on its own."""

ENDLESS = 1e6
"""A bound above this is given as endless."""


TIED = 1e-9
"""A variance over seeds below this part of C is that of equal scores, up to rounding."""


@dataclass(frozen=True)
class Uncertainty:
    """The variance of a mean over seeds and examples by source, in the score's unit squared."""

    seeds: float
    """A, the part that more seeds lower."""
    examples: float = 0.0
    """B - C, the part that only more examples lower."""
    df_seeds: float = 1.0
    df_examples: float = 1.0

    @property
    def se(self) -> float:
        """Give the standard error of the mean."""
        return float(np.sqrt(self.seeds + self.examples))

    def p_value(self, mean: float, family: Family = ALONE) -> float:
        """Compute the two-sided p-value of "it is zero", corrected for its ``family``."""
        return min(1.0, self._tails(abs(mean) / self.se, family))

    def half_width(self, level: float, family: Family = ALONE) -> float:
        """Compute half the width of the interval, which is without zero exactly where the p-value is below 1 - level.

        Endless where no width holds at this level.
        """
        return self.se * self._bound(level, family)

    def detectable(self, level: float, power: float, family: Family = ALONE) -> float:
        """The smallest true mean whose interval at ``level`` excludes zero with a chance of ``power``.

        The noncentral t's of both sources, each at the bound that the mixture sets, weighted as in the mixture: exact
        where one source makes all the noise.
        """
        bound = self._bound(level, family)
        if not np.isfinite(bound):
            return float("inf")
        return self.se * sum(share * float(special.nctdtrinc(df, 1 - power, bound)) for share, df, _ in self._shares())

    def _shares(self) -> Iterator[tuple[float, float, bool]]:
        """Give the share of the variance, degrees of freedom, and whether it is the seeds', of each source with one."""
        for part, df, of_seeds in ((self.seeds, self.df_seeds, True), (self.examples, self.df_examples, False)):
            if part > 0:
                yield part / (self.seeds + self.examples), df, of_seeds

    def _tails(self, t: float, family: Family) -> float:
        return sum(share * family.tail(t, df, of_seeds) for share, df, of_seeds in self._shares())

    def _bound(self, level: float, family: Family) -> float:
        sources = list(self._shares())
        if len(sources) == 1:
            _, df, of_seeds = sources[0]
            return _bound_of_one(level, family, df, of_seeds)
        return _bound(lambda t: self._tails(t, family), 1 - level)


@lru_cache(maxsize=1024)
def _bound_of_one(level: float, family: Family, df: float, of_seeds: bool) -> float:
    """The bound where one source makes all the noise, which many comparisons have in common."""
    return _bound(lambda t: family.tail(t, df, of_seeds), 1 - level)


def _bound(tails: Callable[[float], float], tail: float) -> float:
    """Find where ``tails`` comes down to ``tail``; endless where it is far away."""
    high = 4.0
    while tails(high) > tail:
        high *= 4
        if high > ENDLESS:
            return float("inf")
    return float(brentq(lambda t: tails(t) - tail, 0.0, high, xtol=1e-10, rtol=1e-12))


def uncertainty_of_mean(matrix: ArrayLike, overlap: float = 0.0) -> Uncertainty:
    """Compute how well the mean of ``matrix`` (runs, examples) is known, over new seeds and new examples.

    It needs two runs. One column, the runs' scores, leaves the examples out: Student's t. ``overlap`` is added to
    1 / runs where the runs' data overlap (Nadeau and Bengio, "Inference for the generalization error", Machine
    Learning 2003, section 3: the examples of a run's test set divided by those of its training set).
    """
    values = _runs(matrix)
    runs, n = values.shape
    seeds = float(values.mean(axis=1).var(ddof=1)) * (1 / runs + overlap)
    if n == 1:
        return Uncertainty(seeds, df_seeds=runs - 1)
    left = _residuals(values)
    both = _products(left, left) / (runs * (runs - 1) * n * (n - 1))
    examples = float(values.mean(axis=0).var(ddof=1)) / n
    return Uncertainty(_unless_tied(seeds, both, runs), max(0.0, examples - both), runs - 1, n - 1)


def uncertainty_of_difference(
    left: ArrayLike, right: ArrayLike, pairs: tuple[list[int], list[int]] | None = None, overlap: float = 0.0
) -> Uncertainty:
    """Compute how well the mean of ``left`` less that of ``right`` is known; (runs, examples), the same examples.

    ``pairs`` are the places of the runs that share a seed, in the left and in the right: such runs go up and down
    together, so that the difference is known better, and the others count as well. Where all are pairs it is the
    paired t test, where fewer than two are Welch's. Between the two, the correlation of the pairs stands for that of
    all, and the degrees of freedom are Derrick et al.'s ("Test statistics for the comparison of means for two samples
    that include both paired and independent observations", Journal of Modern Applied Statistical Methods 2017).
    """
    one, other = _runs(left), _runs(right)
    runs, others, n = len(one), len(other), one.shape[1]
    places, theirs = pairs if pairs is not None and len(pairs[0]) > 1 else ([], [])
    common = len(places)
    if common == runs == others:
        return uncertainty_of_mean(one[places] - other[theirs], overlap)
    lefts, rights = one.mean(axis=1), other.mean(axis=1)
    parts = float(lefts.var(ddof=1)) / runs, float(rights.var(ddof=1)) / others
    weight = common / (runs * others)
    together = 0.0
    if common and min(parts) > 0:
        spreads = lefts[places].std() * rights[theirs].std()
        moved = float(np.mean((lefts[places] - lefts[places].mean()) * (rights[theirs] - rights[theirs].mean())))
        alike = moved / spreads if spreads > 0 else 0.0
        together = alike * float(lefts.std(ddof=1) * rights.std(ddof=1))
    variance = sum(parts) - 2 * weight * together
    if overlap:
        variance += overlap * (parts[0] * runs + parts[1] * others - 2 * together)
    free = _degrees(parts, (runs, others), common)
    if n == 1:
        return Uncertainty(max(0.0, variance), df_seeds=free)
    examples = float(np.var(one.mean(axis=0) - other.mean(axis=0), ddof=1)) / n
    ours, others_left = _residuals(one), _residuals(other)
    both = _products(ours, ours) / (runs * (runs - 1)) + _products(others_left, others_left) / (others * (others - 1))
    if common:
        shared = _products(_residuals(one[places]), _residuals(other[theirs]))
        both -= 2 * weight * shared / (common - 1)
    both /= n * (n - 1)
    return Uncertainty(_unless_tied(variance, both, min(runs, others)), max(0.0, examples - both), free, n - 1)


def _unless_tied(seeds: float, both: float, runs: int) -> float:
    """Give A, or C where all runs have equal scores: coarse scores tie by chance, which is not certainty. Two runs tie
    nearly so often that it is C at least."""
    if runs < 3:
        return max(seeds, both)
    return max(0.0, seeds if seeds > TIED * both else both)


def _degrees(parts: tuple[float, float], runs: tuple[int, int], common: int) -> float:
    """Count the degrees of freedom of a difference: paired, Welch's, or between the two."""
    squares = sum(part**2 / (count - 1) for part, count in zip(parts, runs, strict=True))
    welch = sum(parts) ** 2 / squares if squares else float(sum(runs) - 2)
    if not common:
        return welch
    alone = sum(runs) - 2 * common
    return (common - 1) + (welch - common + 1) / (alone + 2 * common) * alone


def _runs(matrix: ArrayLike) -> Matrix:
    values = np.asarray(matrix, dtype=float)
    assert values.ndim == 2 and len(values) > 1, "expected (runs, examples), two runs"
    return values


def _residuals(matrix: Matrix) -> Matrix:
    """What neither the run nor the example explains."""
    left = matrix - matrix.mean(axis=1, keepdims=True)
    left -= left.mean(axis=0)
    return left


def _products(left: Matrix, right: Matrix) -> float:
    """Sum the products of two matrices' elements. Not BLAS, whose threads take longer to wake than the sum does."""
    return float(np.einsum("ij,ij->", left, right))


def by_cluster(matrix: ArrayLike, clusters: ArrayLike) -> Matrix:
    """Make one column of each cluster: (runs, examples) becomes (runs, clusters), each row with the same mean.

    ``clusters`` (examples,) holds an integer for each example. Clusters may differ in size, so that the mean over
    examples is a ratio of two sums over clusters; a cluster's column is its linear part: the row's mean, plus the sum
    of the cluster's deviations from it, divided by the mean size. What is computed from the columns as if they were
    examples has the errors of drawing whole clusters (Cochran, Sampling Techniques, 1977, chapter 9A).
    """
    values, labels = np.asarray(matrix, dtype=float), np.asarray(clusters)
    assert labels.shape == values.shape[1:], "expected one cluster for each example"
    _, number = np.unique(labels, return_inverse=True)
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    means = values.mean(axis=1, keepdims=True)
    sums = np.add.reduceat((values - means)[:, order], starts, axis=1)
    return means + sums * (len(starts) / values.shape[1])
