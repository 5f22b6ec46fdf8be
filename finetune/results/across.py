"""One number for all evaluation sets of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from finetune.metrics import unit
from finetune.results.measure import works
from finetune.results.reading import Run, Study
from finetune.results.schema import (
    AcrossPair,
    AcrossResult,
    AcrossVariant,
    EvaluationSet,
    LeftOut,
    Orders,
    ProfileResult,
    SetMetric,
)
from finetune.stats.across import (
    METHOD,
    ORDER_TAU,
    Order,
    Value,
    aggregate,
    almost_stochastic_order,
    improvement_across,
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    performance_profile,
)

Matrix = NDArray[np.float64]
Scores = Mapping[str, Mapping[int | None, Sequence[float]]]
"""By variant, then by seed: a run's scores on every set."""

GAMMA = 1.0
"""Score that counts as reaching the goal: the most that a share can be."""

STEPS = 100
"""Steps of a profile's thresholds, from the lowest to the highest score."""

STATISTICS: dict[str, Callable[[Matrix], Matrix]] = {
    "iqm": interquartile_mean,
    "median": median_score,
    "mean": mean_score,
    "optimality_gap": partial(optimality_gap, gamma=GAMMA),
}

OFF_SCALE = "no share between 0 and 1 of which more is better"
KEPT_APART = "it is about what was known before"
TOO_FEW_TASKS = "fewer than two tasks have a headline metric that is a share between 0 and 1, of which more is better"
NO_RUN = "no run has a score on every task"


def across_of(
    study: Study, tasks: Sequence[EvaluationSet], rng: np.random.Generator, level: float = 0.95
) -> AcrossResult | None:
    """Summarise every variant over all evaluation sets, ``tasks``; None with a single one.

    Headline metrics are put together only where they have one scale already: shares between 0 and 1, more is better.
    Others are in ``left_out``, with the reason. Runs that failed or lack a score on one of the sets are left out of it.
    """
    if len(tasks) < 2:
        return None
    left_out = [LeftOut(task.name, task.metric, why) for task in tasks if (why := _left_out(task))]
    used = [task for task in tasks if not _left_out(task)]
    reason = None if len(used) > 1 else TOO_FEW_TASKS
    about = AcrossResult(
        tasks=[SetMetric(task.name, task.metric) for task in used],
        left_out=left_out,
        gamma=GAMMA,
        order_tau=ORDER_TAU,
        level=level,
        method=METHOD,
        reason=reason,
    )
    if reason:
        return about
    keys, every = [task.key for task in used], study.everything
    scores = {name: _by_seed(runs, keys) for name, runs in every.items()}
    seen = np.array([row for rows in scores.values() for row in rows.values()])
    taus = _thresholds(seen) if seen.size else np.empty(0)
    tuned = [name for name in study.variants if scores[name]]
    alpha = (1 - level) / max(1, len(tuned) * (len(tuned) - 1) * len(used))
    names = [task.name for task in used]
    return replace(
        about,
        taus=taus.tolist(),
        variants=[_variant(name, scores[name], len(runs), taus, level) for name, runs in every.items()],
        pairs=[_pair(scores, pair, names, rng, (level, alpha)) for pair in combinations(tuned, 2)],
    )


def _left_out(task: EvaluationSet) -> str | None:
    """Say why a set is not taken together with the others; None: it is."""
    if task.role == "forgetting":
        return KEPT_APART
    if task.higher_is_better and unit(task.metric).is_share:
        return None
    return f"{unit(task.metric).label} is {OFF_SCALE}"


def _thresholds(seen: Matrix) -> Matrix:
    """Choose thresholds from just below the lowest score, which every run exceeds, to the highest, which none does."""
    low, high = float(seen.min()), float(seen.max())
    return np.linspace(low - (high - low) / STEPS, high, STEPS + 2)


def _by_seed(runs: Sequence[Run], keys: Sequence[str]) -> dict[int | None, list[float]]:
    """Collect the scores on every set of a variant's runs that work, by seed."""
    scored = [run for run in works(runs) if all(key in run.scores for key in keys)]
    return {run.seed: [run.scores[key] for key in keys] for run in scored}


def _variant(
    name: str, scores: Mapping[int | None, Sequence[float]], begun: int, taus: Matrix, level: float
) -> AcrossVariant:
    table = np.array(list(scores.values()))
    if not len(table):
        return AcrossVariant(name, 0, begun, NO_RUN)
    found = {key: aggregate(table, statistic, level) for key, statistic in STATISTICS.items()}
    profile = performance_profile(table, taus, level)
    low, high = (
        (None, None) if profile.low is None or profile.high is None else (profile.low.tolist(), profile.high.tolist())
    )
    drawn = ProfileResult(profile.share.tolist(), low, high)
    return AcrossVariant(name, len(table), begun - len(table), None, **found, profile=drawn)


def _pair(
    scores: Scores, pair: tuple[str, str], tasks: Sequence[str], rng: np.random.Generator, levels: tuple[float, float]
) -> AcrossPair:
    """Compare two variants over all runs of both."""
    level, alpha = levels
    left, right = (np.array(list(scores[name].values())) for name in pair)

    def orders(a: Matrix, b: Matrix) -> dict[str, Order]:
        columns = zip(tasks, a.T, b.T, strict=True)
        return {task: almost_stochastic_order(x, y, rng, alpha) for task, x, y in columns}

    improvement: Value = improvement_across(left, right, level)
    return AcrossPair(*pair, improvement, alpha, Orders(orders(left, right), orders(right, left)))
