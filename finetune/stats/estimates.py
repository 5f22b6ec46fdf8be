"""One number over seeds: its mean, its spread, and the intervals that few seeds honestly allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from finetune.stats.families import Family, Sequential, Several
from finetune.stats.multibootstrap import Uncertainty, by_cluster, uncertainty_of_mean

Interval = tuple[float, float]

ENOUGH = 10
"""Seeds from which on the interval of an SD follows the scores' own kurtosis, which fewer cannot show."""

SHARE = (0.0, 1.0)
"""The bounds of a share."""

TOO_FEW = "one seed says nothing about the spread; run at least two"
NO_SCORE = "no run has this score"
NO_SPREAD = "every seed has the same score, so its spread is not known; that is not certainty"
ENDLESS = "so few seeds give no interval with an end"
EQUAL = "every seed has the same score, which says nothing about the spread: no interval, however many seeds"


@dataclass(frozen=True)
class Estimate:
    """A score over ``n`` seeds, in the score's own unit. What ``n`` does not allow is None, and ``reason`` says why."""

    n: int
    """Seeds that have the score."""
    mean: float | None
    """Over seeds."""
    sd: float | None
    """Over seeds, with n - 1."""
    median: float | None
    """Over seeds."""
    min: float | None
    """The lowest."""
    max: float | None
    """The highest."""
    ci: Interval | None
    """Of the mean, over new seeds and new examples; over new seeds alone where examples have no scores of their own."""
    level: float
    """Of the intervals."""
    method: str
    """How `ci` was computed."""
    ci_seeds: Interval | None = None
    """Of the mean, over new seeds on these examples."""
    prediction: Interval | None = None
    """Of the score of one more run on these examples."""
    sd_ci: Interval | None = None
    """Of `sd`."""
    reason: str | None = None
    """Why something is None, or what has to be known of it."""


@dataclass(frozen=True)
class Gain:
    """The difference of a combination of runs and the mean of these runs, in the score's own unit."""

    mean: float
    """Of the differences."""
    ci: Interval | None
    """Over examples, or whole groups of them: of which seeds it is made, it does not cover."""
    level: float
    """Of the interval."""
    reason: str | None = None
    """Why there is no interval."""


def estimate(
    scores: ArrayLike,
    level: float = 0.95,
    contributions: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    bounds: Interval | None = None,
    overlap: float = 0.0,
    sequential: bool = False,
) -> Estimate:
    """Estimate mean and SD of one score per seed, with their intervals.

    ``scores`` has shape (n,) and any unit; ``contributions`` (n, examples) are what each example adds, so that a row's
    mean is the seed's score, and ``clusters`` (examples,) an integer for each example where some belong together. With
    them the mean's interval covers new seeds and new examples, as a difference's does
    (:mod:`finetune.stats.multibootstrap`); without, new seeds on these examples: Student's t. Both are of that one kind
    whatever n is. A percentile bootstrap's 95 % interval would cover only 76 % at n = 3 and 85 % at n = 5.

    ``bounds`` are the lowest and the highest score there can be: no interval goes beyond. Where they are a share's, and
    every example's score lies between them as well, two more examples at either bound are counted in for the interval
    (Agresti and Coull, "Approximate is better than exact for interval estimation of binomial proportions", The American
    Statistician 1998), without which a model that makes no mistake on these examples would seem certain to make none.
    ``overlap``: see :func:`~finetune.stats.multibootstrap.uncertainty_of_mean`. ``sequential``: seeds were added until
    something was known, so that intervals are those of a confidence sequence (:mod:`finetune.stats.sequence`).

    With n < 2 the SD and the intervals are None, with a reason.
    """
    values = _finite(scores)
    n = len(values)
    family: Family = Sequential() if sequential else Several()
    matrix = None if contributions is None else np.asarray(contributions, dtype=float)
    method = _method(level, sequential, matrix is not None, clusters is not None, overlap)
    if n == 0:
        return Estimate(0, None, None, None, None, None, None, level, method, reason=NO_SCORE)
    mean, low, high = float(values.mean()), float(values.min()), float(values.max())
    median = float(np.median(values))
    if n == 1:
        return Estimate(1, mean, None, median, low, high, None, level, method, reason=TOO_FEW)
    equal = low == high  # rounding would give equal numbers an SD of 1e-17
    sd = 0.0 if equal else float(values.std(ddof=1))
    of_seeds = Uncertainty(sd**2 * (1 / n + overlap), df_seeds=n - 1)
    seeds = None if equal else _interval(mean, of_seeds, level, family, bounds)
    ci = seeds
    if matrix is not None and matrix.shape[1] > 1:
        ci = interval_of_mean(matrix, level, clusters, bounds, overlap, family)
    if equal and sequential:
        return Estimate(n, mean, 0.0, median, low, high, None, level, method, sd_ci=(0.0, 0.0), reason=EQUAL)
    reason = NO_SPREAD if equal else None if ci else ENDLESS
    once_more = None
    if not equal and not sequential:
        once_more = _prediction(mean, sd * np.sqrt(1 + 1 / n + overlap), n, level, bounds)
    return Estimate(
        *(n, mean, sd, median, low, high, (mean, mean) if equal and matrix is None else ci, level, method),
        ci_seeds=(mean, mean) if equal else seeds,
        prediction=once_more,
        sd_ci=(0.0, 0.0) if equal else sd_interval(values, level),
        reason=reason,
    )


def _prediction(mean: float, sd: float, n: int, level: float, bounds: Interval | None) -> Interval:
    """The interval of one more run, which strays from the mean of ``n`` by ``sd``."""
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd
    return _within((mean - half, mean + half), bounds)


def interval_of_mean(
    contributions: ArrayLike,
    level: float = 0.95,
    clusters: ArrayLike | None = None,
    bounds: Interval | None = None,
    overlap: float = 0.0,
    family: Family | None = None,
) -> Interval | None:
    """Compute the interval of the mean of ``contributions`` (runs, examples), over new seeds and new examples.

    One run is one fixed model, and only the examples are new. The other arguments are :func:`estimate`'s. None where
    it has no end.
    """
    matrix = np.atleast_2d(np.asarray(contributions, dtype=float))
    grouped = matrix if clusters is None else by_cluster(matrix, clusters)
    if bounds == SHARE and matrix.min() >= 0 and matrix.max() <= 1:
        ends = np.repeat([[0.0, 1.0, 0.0, 1.0]], len(matrix), axis=0)
        grouped = np.hstack([grouped, ends])
    if grouped.shape[1] < 2:
        return None
    mean = float(grouped.mean())
    if len(grouped) > 1:
        noise = uncertainty_of_mean(grouped, overlap)
    else:
        count = grouped.shape[1]
        noise = Uncertainty(0.0, float(grouped.var(ddof=1)) / count, df_examples=count - 1)
    return _interval(mean, noise, level, family or Several(), bounds)


def _interval(
    mean: float, noise: Uncertainty, level: float, family: Family, bounds: Interval | None
) -> Interval | None:
    if noise.se == 0:
        return mean, mean
    half = noise.half_width(level, family)
    return _within((mean - half, mean + half), bounds) if np.isfinite(half) else None


def _within(interval: Interval, bounds: Interval | None) -> Interval:
    if bounds is None:
        return float(interval[0]), float(interval[1])
    return float(np.clip(interval[0], *bounds)), float(np.clip(interval[1], *bounds))


def _method(level: float, sequential: bool, examples: bool, clustered: bool, overlap: float) -> str:
    kind = "confidence sequence (t-mixture), which holds although the scores decided the number of seeds"
    kind = kind if sequential else "Student t interval"
    over = " and new groups of examples" if clustered else " and new examples"
    told = f"mean over seeds, {level:.0%} {kind} over new seeds{over if examples else ''}, SD with n - 1"
    return f"{told}; corrected for overlapping splits (Nadeau and Bengio 2003)" if overlap else told


def sd_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Compute the interval of the SD (ddof 1) of ``values`` (n,), n >= 2, in their unit.

    Below ten values the chi-square interval of normal ones. From ten on Bonett's (2006, Computational Statistics &
    Data Analysis 50, 775-782), which estimates the kurtosis: hardly wider for normal scores, and where a collapsed
    seed skews them it does not get worse with more seeds, as the chi-square interval does (gamma of shape 4 at
    n = 20: 93 % covered instead of 88 %). Either falls short where scores are very skewed: exponential ones are
    covered 82 to 88 % of the time.
    """
    scores = _finite(values)
    n, sd = len(scores), float(scores.std(ddof=1))
    if np.ptp(scores) == 0:
        return 0.0, 0.0
    if n < ENOUGH:
        low, high = sd_factors(n, level)
        return sd * low, sd * high
    z = stats.norm.ppf((1 + level) / 2)
    centre = stats.trim_mean(scores, 0.5 / np.sqrt(n - 4))
    kurtosis = n * ((scores - centre) ** 4).sum() / ((n - 1) * sd**2) ** 2
    small = n / (n - z)
    error = small * np.sqrt((kurtosis - (n - 3) / n) / (n - 1))  # of the variance's logarithm
    low, high = sd * np.sqrt(small * np.exp([-z * error, z * error]))
    return float(low), float(high)


def expected_best(scores: ArrayLike, higher_is_better: bool = True) -> NDArray[np.float64]:
    """Estimate the best score of 1, 2, ... n seeds, (n,), in the unit of ``scores`` (n,); the first is their mean.

    Exact for draws with replacement from the n scores: the best of k is at most the i-th smallest with probability
    (i/n)^k (Dodge et al. 2019, section 3.1). It holds for independent seeds only, and the last ones fall short of
    what k new seeds would give, because none can be better than the best seen.
    """
    sign = 1 if higher_is_better else -1
    ordered = np.sort(sign * _finite(scores))
    n = len(ordered)
    at_most = (np.arange(n + 1) / max(n, 1)) ** np.arange(1, n + 1)[:, None]  # (draws, rank)
    return sign * (np.diff(at_most, axis=1) @ ordered)


def expected_best_intervals(
    scores: ArrayLike, bounds: Interval, higher_is_better: bool = True, level: float = 0.95
) -> list[Interval]:
    """Compute the intervals of :func:`expected_best`, for 1, 2, ... n seeds at once, over new seeds on these examples.

    ``scores`` (n,) lie within ``bounds``, in their unit. The distribution of scores lies within the Kolmogorov-Smirnov
    band of the n seen with a chance of ``level``, and the expected best of k draws at the ends of the band bounds it
    (Lourie, Cho and He, "Show your work with confidence: confidence bands for tuning curves", NAACL 2024). It assumes
    no shape, and is wide: the best of new seeds may be one that few seeds have not shown.
    """
    values = _finite(scores)
    if not higher_is_better:
        turned = expected_best_intervals(-values, (-bounds[1], -bounds[0]), True, level)
        return [(-high, -low) for low, high in turned]
    n = len(values)
    places = np.concatenate([[bounds[0]], np.sort(values), [bounds[1]]])
    widths, seen = np.diff(places), np.arange(n + 1) / max(n, 1)
    reach = float(stats.kstwo.ppf(level, n)) if n else 1.0
    most, least = np.clip(seen + reach, 0, 1), np.clip(seen - reach, 0, 1)
    draws = np.arange(1, n + 1)[:, None]
    ends = [bounds[1] - widths @ (below**draws).T for below in (most, least)]
    return [(float(low), float(high)) for low, high in zip(*ends, strict=True)]


def t_interval(mean: Any, sd: Any, n: int, level: float = 0.95) -> tuple[Any, Any]:
    """Compute Student's t interval of a mean of ``n`` >= 2; ``mean`` and ``sd`` (ddof 1): numbers or equal shapes."""
    half = stats.t.ppf((1 + level) / 2, n - 1) * sd / np.sqrt(n)
    return mean - half, mean + half


def sd_factors(n: int, level: float = 0.95) -> Interval:
    """An SD from ``n`` >= 2 values times these two is its chi-square interval: 0.60 and 2.87 at n = 5."""
    tail = (1 - level) / 2
    low, high = np.sqrt((n - 1) / stats.chi2.ppf([1 - tail, tail], n - 1))
    return float(low), float(high)


def gain(own: ArrayLike, seeds: ArrayLike, level: float = 0.95, clusters: ArrayLike | None = None) -> Gain:
    """Compute how far one model is ahead of the mean of some others, over the examples they were all scored on.

    ``own`` (examples,) and ``seeds`` (runs, examples) are per-example scores in any unit. The interval is Student's t
    over the paired differences of the examples; of whole clusters, where ``clusters`` (examples,) holds an integer for
    each example (:func:`~finetune.stats.multibootstrap.by_cluster`). With fewer than two of them it is None, with a
    reason.
    """
    scores, others = np.asarray(own, dtype=float), np.asarray(seeds, dtype=float)
    assert others.shape == (len(others), len(scores)) and len(others), "expected (examples,) and (runs, examples)"
    differences = scores - others.mean(axis=0)
    mean = float(differences.mean())
    if len(scores) < 2:
        return Gain(mean, None, level, "one example says nothing about others")
    apart = differences if clusters is None else by_cluster(differences[None, :], clusters)[0]
    if len(apart) < 2:
        return Gain(mean, None, level, "one group of examples says nothing about others")
    sd = float(apart.std(ddof=1)) if np.ptp(differences) > 0 else 0.0
    low, high = t_interval(mean, sd, len(apart), level)
    return Gain(mean, (float(low), float(high)), level)


def _finite(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=float)
    assert values.ndim == 1 and np.isfinite(values).all(), "scores are one finite number per seed"
    return values
