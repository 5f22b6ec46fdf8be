"""How often runs fail, and what a variant gives in all, runs that fail among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from finetune.stats.estimates import Interval, estimate

LIMIT = 0.95
"""Level of the limit that is told of a failure rate: it is one-sided."""

MARGIN = 0.05
"""Chance that a run at chance level is taken for one that has learnt something."""


@dataclass(frozen=True)
class FailureRate:
    """The failures among ``n`` ended runs. All but the counts are None when no run has ended."""

    count: int
    """How many failed."""
    n: int
    """How many have ended."""
    rate: float | None
    """Their ratio."""
    ci: Interval | None
    """Of the rate (Wilson)."""
    limit: float | None = None
    """The highest rate that these runs do not speak against: a one-sided 95 % limit (Clopper and Pearson 1934)."""
    least: float | None = None
    """The lowest such rate."""


@dataclass(frozen=True)
class Expected:
    """A variant's score over all runs, those that fail among them, in the score's unit."""

    mean: float | None
    """Share of runs that work times their mean, plus share of those that fail times theirs."""
    ci: Interval | None
    """Over new seeds and new examples, and over how often runs fail."""
    failing: float | None
    """Mean score of a run that fails: those that were scored, and others at what needs no training."""
    reason: str | None = None
    """Why something is None."""


def failure_rate(failed: int, n: int, level: float = 0.95) -> FailureRate:
    """Compute the share of ``n`` ended runs that failed, with the Wilson score interval, which holds at 0 of 5 too.

    And its limits: of 5 runs none of which failed, up to 45 % could; of 20, up to 14 %.
    """
    if n == 0:
        return FailureRate(0, 0, None, None)
    interval = stats.binomtest(failed, n).proportion_ci(level, method="wilson")
    ci = float(interval.low), float(interval.high)
    least, limit = rate_limits(failed, n, LIMIT)
    return FailureRate(failed, n, failed / n, ci, limit, least)


def rate_limits(failed: int, n: int, level: float) -> Interval:
    """Compute the lowest and the highest rate, each a one-sided limit at ``level`` (Clopper and Pearson 1934)."""
    low = 0.0 if failed == 0 else float(stats.beta.ppf(1 - level, failed, n - failed + 1))
    high = 1.0 if failed == n else float(stats.beta.ppf(level, failed + 1, n - failed))
    return low, high


def told_apart(left: FailureRate, right: FailureRate) -> float | None:
    """Compute the two-sided p-value of "both fail equally often" (Boschloo 1970, which never errs more often than it
    says); None where no run of a side has ended."""
    if not left.n or not right.n:
        return None
    if left.count == right.count == 0:
        return 1.0
    return _boschloo(left.count, left.n, right.count, right.n)


@lru_cache(maxsize=1024)
def _boschloo(failed: int, n: int, others_failed: int, others: int) -> float:
    """The same pair is asked about on every set and metric, and an answer takes a tenth of a second."""
    table = [[failed, others_failed], [n - failed, others - others_failed]]
    return float(stats.boschloo_exact(table).pvalue)


def at_chance(right: float, commonest: float, examples: int) -> bool:
    """Tell whether a share ``right`` of ``examples`` does not show more than always giving the commonest label.

    That label is right in the share ``commonest``. Of runs at chance level half would land above it by luck, so a
    margin is asked for: a chance of at most :data:`MARGIN` to be so good (the binomial test).
    """
    return float(stats.binom.sf(round(right * examples) - 1, examples, commonest)) > MARGIN


def no_better(own: ArrayLike, trivial: ArrayLike, higher_is_better: bool = True) -> bool:
    """Tell whether a run's scores of examples do not show more than those of an answer that needs no learning.

    ``own`` and ``trivial`` are (examples,) scores of the same examples, one by one. Where each is 1 or 0, right or
    wrong, :func:`at_chance` tells; otherwise the one-sided paired t test over examples (Student 1908), at the same
    level :data:`MARGIN`. Of a single example nothing is shown, and of scores that are no numbers neither.
    """
    found, others = np.asarray(own, dtype=float), np.asarray(trivial, dtype=float)
    if np.isin([found, others], (0.0, 1.0)).all() and higher_is_better:
        return at_chance(float(found.mean()), float(others.mean()), len(found))
    gain = found - others if higher_is_better else others - found
    if not np.isfinite(gain).all() or len(gain) < 2:
        return True
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5
    if error == 0:  # all alike
        return bool(gain[0] <= 0)
    return float(stats.t.sf(gain.mean() / error, len(gain) - 1)) > MARGIN


def expected(
    scores: ArrayLike,
    failed: Sequence[float | None],
    floor: float | None,
    contributions: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    bounds: Interval | None = None,
    level: float = 0.95,
    overlap: float = 0.0,
    sequential: bool = False,
) -> Expected:
    """Compute what a variant gives in all, from the ``scores`` (n,) of runs that work and those of runs that failed.

    A run that ``failed`` without a score (None) counts with ``floor``, what needs no training: the commonest label's
    score or the untuned model's. The interval joins that of the mean of runs that work and that of the failure rate,
    each at half the error, so that it covers at least ``level``; where no run failed, a failing one is taken to score
    ``floor``. The other arguments are :func:`~finetune.stats.estimates.estimate`'s.
    """
    values = np.asarray(scores, dtype=float)
    known = [floor if score is None else score for score in failed]
    n = len(values) + len(known)
    if not n:
        return Expected(None, None, None, "no run has ended")
    if any(score is None for score in known):
        return Expected(None, None, None, "a run has no score, and there is none that needs no training to count it by")
    found = [score for score in known if score is not None]
    failing = float(np.mean(found)) if found else floor
    working = float(values.mean()) if len(values) else None
    share = len(found) / n
    if working is None:
        return Expected(failing, None, failing, "no run worked")
    mean = working if not found else (1 - share) * working + share * float(np.mean(found))
    if failing is None:
        return Expected(mean, None, None, "what a failing run would score is not known")
    half = (1 + level) / 2
    if len(values) < 2:
        return Expected(mean, None, failing, "one run that works says nothing about the spread")
    ci = estimate(values, half, contributions, clusters, bounds, overlap, sequential).ci
    if ci is None:
        return Expected(mean, None, failing, "the mean of runs that work has no interval with an end")
    low, high = rate_limits(len(found), n, (1 + half) / 2)
    everything = [*found, *([] if floor is None else [floor])]
    ends = [
        (1 - rate) * of_working + rate * of_failing
        for rate in (low, high)
        for of_working in ci
        for of_failing in (min(everything), max(everything))
    ]
    joined = min(ends), max(ends)
    if bounds is not None:
        joined = max(bounds[0], joined[0]), min(bounds[1], joined[1])
    return Expected(mean, joined, failing)


def holds_in_all(
    ci: Interval,
    mean: float,
    failed: Sequence[float | None],
    floor: float | None,
    failures: FailureRate,
    higher_is_better: bool = True,
) -> bool:
    """Tell whether a variant that is better when it works is better in all, however often it may fail.

    ``ci`` is the interval of the difference between the means of runs that work, which leaves zero out; ``mean`` the
    better variant's, ``failed`` the scores of its runs that failed (None: without one), ``floor`` what needs no
    training, all in the score's unit; ``failures`` counts its runs. It holds where the most that failures could cost,
    the limit of their rate times what the worst failed run loses, is less than the variant is ahead at least. Failures
    of the other variant could only help it. False where nothing says what a failed run scores.
    """
    known = [score for score in failed if score is not None]
    known += [] if floor is None else [floor]
    if not known or failures.limit is None:
        return False
    loss = mean - min(known) if higher_is_better else max(known) - mean
    return failures.limit * loss < min(abs(end) for end in ci)
