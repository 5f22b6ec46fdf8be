"""The power of a comparison: how many seeds and held-out examples it takes to see a difference of two variants.

It is that of the test by which the comparison will be judged (:mod:`finetune.stats.judging`): its ``family`` says what
it is judged together with. For :class:`~finetune.stats.families.AllPairs` the variance over seeds is pooled, and two
variants are held against each other, wherever they stand; for :class:`~finetune.stats.leading.Leader` one variant is
ahead of all others by the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from finetune.stats.families import AllPairs, Family, Part
from finetune.stats.judging import LEADER_FROM, family_share
from finetune.stats.leading import Lead, Leader
from finetune.stats.multibootstrap import ALONE, ENDLESS, Uncertainty

ALPHA, POWER = 0.05, 0.8
"""Two-sided error, and the chance to see a difference that is there: the usual two (Cohen 1988)."""

WIDER = 0.7
"""Where the variance is pooled, pairs are judged with a standard error that is larger than the true one, on average by
this share divided by the number of seeds: variants that are alike do not look it, and those that seem to scatter more
get a larger variance (:data:`~finetune.stats.judging.GUARD_OF_PAIRS`). Found by simulation, with 3 to 15 variants."""

DEGREES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 18, 25, 40, 80, 240, 1_000_000)
"""Degrees of freedom at which the tail of all pairs is computed; the last stands for endless."""

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


@dataclass(frozen=True)
class Between:
    """A ``family`` whose tail is computed at :data:`DEGREES` only: that of all pairs takes long, and a plan needs it at
    many. Between two of them its logarithm goes straight, in 1 / df."""

    family: Family

    def tail(self, t: float, df: float, of_seeds: bool = True) -> float:
        high = next((place for place, each in enumerate(DEGREES) if each >= df), len(DEGREES) - 1)
        if DEGREES[high] <= df or not high:
            return self.family.tail(t, DEGREES[high], of_seeds)
        below, above = DEGREES[high - 1], DEGREES[high]
        weight = (1 / df - 1 / above) / (1 / below - 1 / above)
        tails = self.family.tail(t, below, of_seeds), self.family.tail(t, above, of_seeds)
        return float(tails[0] ** weight * tails[1] ** (1 - weight))


def power(
    difference: float,
    noise: Noise,
    seeds: float,
    examples: float = math.inf,
    paired: bool = True,
    alpha: float = ALPHA,
    family: Family = ALONE,
) -> float:
    """Compute the chance that a two-sided test at ``alpha`` sees a true ``difference`` over ``seeds`` >= 2 a side.

    ``family`` is what it is judged together with. A t statistic on the noncentral t distribution; of two sources of
    noise, a mixture, as the test itself has it. Judged alone and without noise of examples (``examples`` endless, or
    the question is about these examples alone and ``noise.examples`` is 0) it is exact: ``seeds`` - 1 degrees of
    freedom paired, twice that unpaired.
    """
    assert seeds >= 2 and examples >= 2, "one of a kind has no spread"
    known, judged = _planned(noise, seeds, examples, paired, family)
    if known.se == 0:
        return 1.0 if difference else alpha
    if isinstance(family, Leader):
        together, of_all = _planned(noise, seeds, examples, paired, AllPairs(family.variants))
        return Lead(known, family, together, of_all, 1 - alpha).power(difference)
    bound, shift = known.half_width(1 - alpha, judged) / known.se, abs(difference) / known.se
    if not math.isfinite(bound):
        return 0.0
    parts = ((known.seeds, known.df_seeds), (known.examples, known.df_examples))
    return sum(part / known.se**2 * _beyond(bound, df, shift) for part, df in parts if part)


def best_power(difference: float, noise: Noise, examples: float, alpha: float = ALPHA, family: Family = ALONE) -> float:
    """The chance that endless seeds would have on ``examples``: no study on them has a better one."""
    return power(difference, noise, math.inf, examples, alpha=alpha, family=family)


def _planned(noise: Noise, seeds: float, examples: float, paired: bool, family: Family) -> tuple[Uncertainty, Family]:
    """How well a study will know the difference, and the family as it is judged: see
    :func:`~finetune.stats.judging.judge`."""
    free = (1 if paired else 2) * (seeds - 1)
    of_seeds, of_examples = noise.seed_part(seeds, examples), noise.example_part(examples)
    known = Uncertainty(of_seeds, of_examples, min(free, DEGREES[-1]), min(examples - 1, DEGREES[-1]))
    variants = family.variants if isinstance(family, AllPairs | Leader) else 2
    if variants < 3:
        return known, family
    wider = 1.0 if isinstance(family, Leader) and seeds >= LEADER_FROM else (1 + WIDER / seeds) ** 2
    pooled = min((variants - 1) * (seeds - 1), DEGREES[-1])
    judged = Between(Part(family, family_share(variants))) if isinstance(family, AllPairs) else family
    return replace(known, seeds=wider * of_seeds, df_seeds=pooled), judged


def _beyond(bound: float, free: float, shift: float) -> float:
    """The chance that a noncentral t is beyond ``bound`` on either side."""
    if free >= DEGREES[-1]:  # where the t distribution is the normal one
        return float(stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift))
    # The lower tail seen in a mirror: as `cdf(-bound, free, shift)` SciPy makes it NaN where it is small.
    return float(stats.nct.sf(bound, free, shift) + stats.nct.sf(bound, free, -shift))


def seeds_needed(
    difference: float,
    noise: Noise,
    examples: float = math.inf,
    paired: bool = True,
    alpha: float = ALPHA,
    wanted: float = POWER,
    family: Family = ALONE,
) -> int | None:
    """Find the fewest seeds a side that see ``difference`` with a chance of ``wanted``; None where no number does.

    None means that the test set is too small (:func:`examples_needed` says how large it has to be), or that more than
    :data:`MOST` would be needed.
    """
    if best_power(difference, noise, examples, alpha, family) < wanted:
        return None
    return _fewest(lambda seeds: power(difference, noise, seeds, examples, paired, alpha, family) >= wanted, MOST)


def examples_needed(
    difference: float,
    noise: Noise,
    seeds: int | None = None,
    paired: bool = True,
    alpha: float = ALPHA,
    wanted: float = POWER,
    family: Family = ALONE,
) -> int | None:
    """Find the fewest held-out examples on which ``seeds`` a side see ``difference``; None for ``seeds``: endless ones.

    None where no number of examples helps so few seeds, or where more than 100 times :data:`MOST` would be needed.
    """

    def sees(examples: int) -> bool:
        if seeds is None:
            return best_power(difference, noise, examples, alpha, family) >= wanted
        return power(difference, noise, seeds, examples, paired, alpha, family) >= wanted

    return _fewest(sees, 100 * MOST)


def detectable(
    noise: Noise,
    seeds: int,
    examples: float = math.inf,
    paired: bool = True,
    alpha: float = ALPHA,
    wanted: float = POWER,
    family: Family = ALONE,
) -> float:
    """The smallest true difference that a study of this size sees with a chance of ``wanted``, in the score's unit.

    Endless where it sees none, as a sequence with two or three seeds does.
    """
    error = math.sqrt(noise.seed_part(seeds, examples) + noise.example_part(examples))
    if error == 0:
        return 0.0
    low, high = 0.0, 1.0
    while power(high * error, noise, seeds, examples, paired, alpha, family) < wanted:
        low, high = high, 2 * high
        if high > ENDLESS:
            return math.inf
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        seen = power(middle * error, noise, seeds, examples, paired, alpha, family) >= wanted
        low, high = (low, middle) if seen else (middle, high)
    return high * error


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
