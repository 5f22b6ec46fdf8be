"""One number for several tasks: interquartile mean, optimality gap, performance profile, improvement, stochastic order.

Scores come as (runs, tasks): on one scale for all tasks, higher is better. A row is one run, that is one model, and its
scores on several tasks rise and fall together. So intervals leave out whole runs, with Student's t. The stratified
bootstrap of Agarwal et al. (NeurIPS 2021), made for agents trained anew for each task, resamples each task on its own:
where runs vary together, by as much as on their own, its 95 % interval of the mean of four tasks covers 61 % at 3 runs,
69 % at 5 and 76 % at 10 and at 20. One of whole runs covers 75, 81, 91 and 92 %; leaving runs out, 94 to 95 % (600
simulations each). The least that was seen of the latter is 90 %, of the interquartile mean of two tasks at 3 runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from finetune.stats.estimates import NO_SPREAD, TOO_FEW, Interval
from finetune.stats.improvement import improvement_interval, probability_of_improvement
from finetune.stats.jackknife import interval, share_interval

Scores = NDArray[np.float64]

METHOD = "Student t interval from leaving out one run at a time, with its scores on all tasks"
ORDER_TAU = 0.2
"""Below this epsilon_min one distribution counts as almost stochastically larger; Dror et al. (2019) take 0.5."""


@dataclass(frozen=True)
class Value:
    """A number and its interval, which is None where the runs allow none, with a reason."""

    value: float
    """The number."""
    ci: Interval | None
    """Over runs."""
    reason: str | None = None
    """Why there is no interval."""


@dataclass(frozen=True)
class Profile:
    """Share of all runs and tasks that score more than each of ``taus``; its interval point by point."""

    taus: Scores
    share: Scores
    low: Scores | None
    high: Scores | None


@dataclass(frozen=True)
class Order:
    """The distance of ``left`` from being stochastically larger than ``right``."""

    epsilon: float
    """Share of their squared distance that lies where the order is violated: 0 never, 1 everywhere, 0.5 if equal."""
    epsilon_min: float | None
    """Its upper bound at the level asked for; None where so few runs bound nothing."""
    reason: str | None = None
    """Why it is not bounded."""


def interquartile_mean(scores: ArrayLike) -> Scores:
    """Mean of the middle half of all runs and tasks: (..., runs, tasks) to (...). Section 4.3 of Agarwal et al."""
    table = np.asarray(scores, dtype=float)
    return stats.trim_mean(table.reshape(*table.shape[:-2], -1), 0.25, axis=-1)


def mean_score(scores: ArrayLike) -> Scores:
    """Mean over runs and tasks: (..., runs, tasks) to (...)."""
    return np.asarray(scores, dtype=float).mean(axis=(-2, -1))


def median_score(scores: ArrayLike) -> Scores:
    """Compute the median over tasks of each task's mean over runs: (..., runs, tasks) to (...)."""
    return np.median(np.asarray(scores, dtype=float).mean(axis=-2), axis=-1)


def optimality_gap(scores: ArrayLike, gamma: float = 1.0) -> Scores:
    """Compute how far all runs and tasks stay below ``gamma`` on average: (..., runs, tasks) to (...), in their unit.

    A score above ``gamma`` counts as ``gamma``; where none can be, the gap is ``gamma`` less the mean. Section 4.3 of
    Agarwal et al.
    """
    return gamma - np.minimum(np.asarray(scores, dtype=float), gamma).mean(axis=(-2, -1))


def aggregate(scores: ArrayLike, statistic: Callable[[Scores], Scores], level: float = 0.95) -> Value:
    """Compute ``statistic`` of ``scores`` (runs, tasks) and its interval over runs; None for one run, with a reason."""
    table = _finite(scores)
    value, runs = float(statistic(table)), len(table)
    if runs < 2:
        return Value(value, None, TOO_FEW)
    rest = statistic(np.stack([np.delete(table, run, axis=0) for run in range(runs)]))
    return Value(value, interval(value, rest, level), NO_SPREAD if np.ptp(table, axis=0).max() == 0 else None)


def performance_profile(scores: ArrayLike, taus: ArrayLike, level: float = 0.95) -> Profile:
    """Compute the share of ``scores`` (runs, tasks) that are above each of ``taus`` (Agarwal et al., section 4.2).

    The band is pointwise and over runs. It has no width where all runs have the same share, as outside of the range of
    scores: that is not certainty.
    """
    thresholds = np.asarray(taus, dtype=float)
    shares = (_finite(scores)[:, :, None] > thresholds).mean(axis=1)  # (runs, taus)
    runs, share = len(shares), shares.mean(axis=0)
    if runs < 2:
        return Profile(thresholds, share, None, None)
    rest = (shares.sum(axis=0) - shares) / (runs - 1)
    bounds = [share_interval(s, without, level) or (s, s) for s, without in zip(share, rest.T, strict=True)]
    low, high = np.array(bounds).T
    return Profile(thresholds, share, low, high)


def improvement_across(left: ArrayLike, right: ArrayLike, level: float = 0.95) -> Value:
    """Compute the chance that a random run of ``left`` (runs, tasks) beats one of ``right``, as a mean over tasks.

    Agarwal et al., section 4.3; ties count half. The interval is that of a single task with this chance, which is right
    where runs are ahead on all tasks or on none, and too wide else: in simulations of three tasks it held the truth in
    98 to 100 % of cases. None with one run on a side, with a reason.
    """
    lefts, rights = _finite(left), _finite(right)
    assert lefts.shape[1] == rights.shape[1], "the same tasks on both sides"
    chances = [probability_of_improvement(a, b) for a, b in zip(lefts.T, rights.T, strict=True)]
    value = float(np.mean([chance for chance in chances if chance is not None]))
    ci = improvement_interval(value, len(lefts), len(rights), level)
    return Value(value, ci, TOO_FEW if ci is None else None)


def violation(left: ArrayLike, right: ArrayLike) -> Scores:
    """Compute the share of two samples' squared quantile distance where ``left`` is smaller: (..., n), (..., m).

    del Barrio et al. (2018), definition of epsilon_W2; the integral over quantiles is exact. 0.5 for equal samples.
    """
    a, b = (np.sort(np.asarray(side, dtype=float), axis=-1) for side in (left, right))
    n, m = a.shape[-1], b.shape[-1]
    # Both quantile functions are steps; in units of 1 / (n m) their edges are whole numbers.
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    gaps = a[..., edges[:-1] // m] - b[..., edges[:-1] // n]
    parts = gaps**2 * np.diff(edges)
    total = parts.sum(axis=-1)
    worse = np.where(gaps < 0, parts, 0.0).sum(axis=-1)
    return np.where(total > 0, worse / np.where(total > 0, total, 1.0), 0.5)


def almost_stochastic_order(
    left: ArrayLike, right: ArrayLike, rng: np.random.Generator, alpha: float = 0.05, resamples: int = 1000
) -> Order:
    """Test whether ``left`` (n,) is almost stochastically larger than ``right`` (m,): scores of runs, higher is better.

    Dror et al. (ACL 2019), after del Barrio et al. (2018): ``epsilon_min`` is the upper 1 - alpha bound of the
    violation, by a normal interval whose SE is that of a bootstrap of both samples; below :data:`ORDER_TAU`, left
    dominates. For several pairs or tasks give alpha / their number, each direction of a pair counted. The theory is for
    many runs: equal normal distributions look ordered in 6 % of cases at 5 runs and 3 % at 10, and in hardly fewer for
    a smaller alpha. Where samples that do not overlap are likelier than ``alpha`` by chance, there is no
    ``epsilon_min``, with a reason.
    """
    a, b = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    n, m = len(a), len(b)
    epsilon = float(violation(a, b))
    chance = 1 / math.comb(n + m, n)
    if chance > alpha or min(n, m) < 2:
        reason = f"{n} and {m} runs of equal variants lie apart by chance once in {round(1 / chance)} times, too often"
        return Order(epsilon, None, f"{reason} for a level of {alpha:.2g}")
    drawn = violation(a[rng.integers(n, size=(resamples, n))], b[rng.integers(m, size=(resamples, m))])
    bound = epsilon + float(stats.norm.ppf(1 - alpha)) * float(drawn.std(ddof=1))
    return Order(epsilon, min(1.0, max(0.0, bound)))


def _finite(scores: ArrayLike) -> Scores:
    table = np.asarray(scores, dtype=float)
    assert table.ndim == 2 and table.size and np.isfinite(table).all(), "expected finite scores, (runs, tasks)"
    return table
