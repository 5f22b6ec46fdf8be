"""The power of a comparison: how many seeds and held-out examples it takes to see a difference of two variants."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ALPHA, POWER = 0.05, 0.8
"""Two-sided error, and the chance to see a difference that is there: the usual two (Cohen 1988)."""

MOST = 100_000
"""More seeds, or a hundred times as many examples, are said to be out of reach."""


@dataclass(frozen=True)
class Noise:
    """The noise in the difference of two variants' scores, as SDs in the score's unit.

    Over R seeds a side and n examples that both are scored on, the variance of the mean difference is
    seeds^2 / R + examples^2 / n + both^2 / (R n).
    """

    seeds: float
    """Of the difference of one run a side on endless examples; without correlation, sqrt(2) times one side's SD."""
    examples: float = 0.0
    """Over examples, of an example's difference on endless seeds: no seed helps against it."""
    both: float = 0.0
    """Of what remains of an example's difference in one pair of runs."""

    @classmethod
    def of_sd(cls, sd: float, examples: float = 0.0) -> Noise:
        """Derive it from the SD over seeds of one variant's score, for two alike variants that do not move together."""
        return cls(math.sqrt(2) * sd, examples)

    @classmethod
    def of_differences(cls, differences: ArrayLike) -> Noise:
        """Estimate it from a pilot: ``differences`` (runs, examples), left minus right of the same seed and example.

        Two-way analysis of variance without replication, moments equated with their expectations (Searle, Casella and
        McCulloch, Variance Components, 1992, section 4.3), below zero clipped. Its part of the seeds is Jordan's
        corrected SD. Needs two runs and two examples.
        """
        matrix = np.asarray(differences, dtype=float)
        assert matrix.ndim == 2 and min(matrix.shape) >= 2, "expected (runs, examples), at least two of each"
        runs, examples = matrix.shape
        by_run, by_example = matrix.mean(axis=1), matrix.mean(axis=0)
        rest = matrix - by_run[:, None] - by_example[None, :] + matrix.mean()
        both = float((rest**2).sum() / ((runs - 1) * (examples - 1)))
        seeds = float(by_run.var(ddof=1)) - both / examples
        over_examples = float(by_example.var(ddof=1)) - both / runs
        return cls(*(math.sqrt(max(0.0, part)) for part in (seeds, over_examples, both)))

    def seed_part(self, seeds: float, examples: float) -> float:
        """The part of the variance that more seeds lower."""
        return (self.seeds**2 + self.both**2 / examples) / seeds

    def example_part(self, examples: float) -> float:
        """The part that only more examples lower."""
        return self.examples**2 / examples


def power(
    difference: float,
    noise: Noise,
    seeds: int,
    examples: float = math.inf,
    paired: bool = True,
    alpha: float = ALPHA,
) -> float:
    """Compute the chance that a two-sided test at ``alpha`` sees a true ``difference`` over ``seeds`` >= 2 a side.

    A t statistic on the noncentral t distribution. Without noise of examples (``examples`` endless, or the question is
    about these examples alone and ``noise.examples`` is 0) it is exact: ``seeds`` - 1 degrees of freedom paired, twice
    that unpaired. With it, the degrees of freedom of the sum of variances are Satterthwaite's (1946).
    """
    assert seeds >= 2 and examples >= 2, "one of a kind has no spread"
    free = (1 if paired else 2) * (seeds - 1)
    return _power(difference, noise.seed_part(seeds, examples), free, noise.example_part(examples), examples - 1, alpha)


def best_power(difference: float, noise: Noise, examples: float, alpha: float = ALPHA) -> float:
    """The chance that endless seeds would have on ``examples``: no study on them has a better one."""
    return _power(difference, 0.0, math.inf, noise.example_part(examples), examples - 1, alpha)


def _power(
    difference: float, seed_part: float, seed_free: float, example_part: float, example_free: float, alpha: float
) -> float:
    variance = seed_part + example_part
    if variance == 0:
        return 1.0 if difference else alpha
    shares = [(seed_part / variance, seed_free), (example_part / variance, example_free)]
    lost = sum(share**2 / free for share, free in shares if share)
    free, shift = (1 / lost if lost else math.inf), abs(difference) / math.sqrt(variance)
    if free > 1e6:  # where the t distribution is the normal one
        bound = stats.norm.isf(alpha / 2)
        return float(stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift))
    bound = stats.t.isf(alpha / 2, free)
    # The lower tail seen in a mirror: as `cdf(-bound, free, shift)` SciPy makes it NaN where it is small.
    return float(stats.nct.sf(bound, free, shift) + stats.nct.sf(bound, free, -shift))


def seeds_needed(
    difference: float,
    noise: Noise,
    examples: float = math.inf,
    paired: bool = True,
    alpha: float = ALPHA,
    wanted: float = POWER,
) -> int | None:
    """Find the fewest seeds a side that see ``difference`` with a chance of ``wanted``; None where no number does.

    None means that the test set is too small (:func:`examples_needed` says how large it has to be), or that more than
    :data:`MOST` would be needed.
    """
    if best_power(difference, noise, examples, alpha) < wanted:
        return None
    return _fewest(lambda seeds: power(difference, noise, seeds, examples, paired, alpha) >= wanted, MOST)


def examples_needed(
    difference: float,
    noise: Noise,
    seeds: int | None = None,
    paired: bool = True,
    alpha: float = ALPHA,
    wanted: float = POWER,
) -> int | None:
    """Find the fewest held-out examples on which ``seeds`` a side see ``difference``; None for ``seeds``: endless ones.

    None where no number of examples helps so few seeds, or where more than 100 times :data:`MOST` would be needed.
    """

    def sees(examples: int) -> bool:
        if seeds is None:
            return best_power(difference, noise, examples, alpha) >= wanted
        return power(difference, noise, seeds, examples, paired, alpha) >= wanted

    return _fewest(sees, 100 * MOST)


def detectable(
    noise: Noise,
    seeds: int,
    examples: float = math.inf,
    paired: bool = True,
    alpha: float = ALPHA,
    wanted: float = POWER,
) -> float:
    """The smallest true difference that a study of this size sees with a chance of ``wanted``, in the score's unit."""
    error = math.sqrt(noise.seed_part(seeds, examples) + noise.example_part(examples))
    if error == 0:
        return 0.0
    low, high = 0.0, 1.0
    while power(high * error, noise, seeds, examples, paired, alpha) < wanted:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        seen = power(middle * error, noise, seeds, examples, paired, alpha) >= wanted
        low, high = (low, middle) if seen else (middle, high)
    return high * error


def alpha_of(comparisons: int, alpha: float = ALPHA) -> float:
    """Compute the level of one comparison in a family of ``comparisons``: Bonferroni's share, Holm's strictest step."""
    return alpha / max(1, comparisons)


def _fewest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest whole number from 2 that is ``enough``, which every larger one is too; None above ``most``."""
    high = 2
    while not enough(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
