"""Two variants held against each other, seed by seed, and a verdict that survives many comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from finetune.stats.estimates import Interval, t_interval

Verdict = Literal["better", "worse", "undecided"]

PAIRED = "paired t-test over common seeds"
ONE_SAMPLE = "one-sample t-test of the seeds against one fixed score"


@dataclass(frozen=True)
class Comparison:
    """``left`` minus ``right`` over ``n`` seeds, in the score's unit. What ``n`` forbids is None, with a reason."""

    n: int
    difference: float | None
    ci: Interval | None
    p_value: float | None
    probability_of_improvement: float | None
    level: float
    method: str
    reason: str | None = None


def compare(
    left: Mapping[int, float], right: Mapping[int, float], higher_is_better: bool = True, level: float = 0.95
) -> Comparison:
    """Paired comparison of two variants, each a score by seed.

    Pairing uses the seeds that both have, because a seed fixes the same data order and initialisation on both sides.
    The probability of improvement needs no pairs and uses all of them. Without two common seeds the difference has
    no interval and no p-value, and ``reason`` says so.
    """
    common = sorted(left.keys() & right.keys())
    differences = np.array([left[seed] - right[seed] for seed in common], dtype=float)
    improvement = probability_of_improvement(list(left.values()), list(right.values()), higher_is_better)
    if not common:
        reason = "the two have no seed in common, so there is nothing to pair"
        return Comparison(0, None, None, None, improvement, level, PAIRED, reason)
    scale = max(abs(scores[seed]) for scores in (left, right) for seed in common)
    return _t_test(differences, scale, improvement, level, PAIRED)


def compare_to_constant(
    left: Mapping[int, float], right: float, higher_is_better: bool = True, level: float = 0.95
) -> Comparison:
    """A variant's scores by seed against one fixed score, such as the untuned base model's."""
    scores = np.array([left[seed] for seed in sorted(left)], dtype=float)
    improvement = probability_of_improvement(scores, [right], higher_is_better)
    if not len(scores):
        return Comparison(0, None, None, None, improvement, level, ONE_SAMPLE, "no run has this score")
    scale = max(abs(right), float(np.abs(scores).max()))
    return _t_test(scores - right, scale, improvement, level, ONE_SAMPLE)


def _t_test(
    differences: NDArray[np.float64], scale: float, improvement: float | None, level: float, method: str
) -> Comparison:
    n, mean = len(differences), float(differences.mean())
    if n < 2:
        reason = "one seed says nothing about the spread of the difference; run at least two"
        return Comparison(n, mean, None, None, improvement, level, method, reason)
    # Equal differences, up to rounding, would give p = 0, from two seeds as from twenty: coarse scores tie by chance.
    if np.ptp(differences) <= 1e-12 * scale:
        reason = f"all {n} differences are equal, so they say nothing about the spread, and a t-test cannot be made"
        return Comparison(n, mean, None, None, improvement, level, method, reason)
    sd = float(differences.std(ddof=1))
    low, high = t_interval(mean, sd, n, level)
    p_value = 2 * float(stats.t.sf(abs(mean) / (sd / np.sqrt(n)), n - 1))
    return Comparison(n, mean, (float(low), float(high)), p_value, improvement, level, method)


def probability_of_improvement(left: ArrayLike, right: ArrayLike, higher_is_better: bool = True) -> float | None:
    """Chance that a random run of ``left`` (n,) beats a random run of ``right`` (m,); ties count half.

    Agarwal et al., NeurIPS 2021, section 4.3, over all n * m pairs. None when a side is empty.
    """
    gains = np.subtract.outer(np.asarray(left, dtype=float), np.asarray(right, dtype=float))
    if not gains.size:
        return None
    if not higher_is_better:
        gains = -gains
    return float(np.mean((gains > 0) + 0.5 * (gains == 0)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (1979) over one family, in the order given. None stays None and does not count."""
    tested = [index for index, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(tested, key=lambda index: p_values[index] or 0.0)):
        largest = max(largest, min(1.0, (len(tested) - rank) * (p_values[index] or 0.0)))
        adjusted[index] = largest
    return adjusted


def verdict(comparison: Comparison, p_adjusted: float | None, higher_is_better: bool = True) -> Verdict:
    """Whether ``left`` is better or worse than ``right``: only if the adjusted p-value and the interval agree on it."""
    if p_adjusted is None or comparison.ci is None or p_adjusted >= 1 - comparison.level:
        return "undecided"
    low, high = comparison.ci
    if low <= 0 <= high:
        return "undecided"
    return "better" if (low > 0) == higher_is_better else "worse"
