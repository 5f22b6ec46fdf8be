"""The results on one evaluation set: each variant's estimates, and every pair of variants compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from finetune import stats
from finetune.core.run_dir import BASE
from finetune.results.agreement import agreement_of
from finetune.results.calibration import calibration_of
from finetune.results.reading import Study
from finetune.results.schema import (
    AgreementResult,
    CalibrationResult,
    Direction,
    EvaluationSet,
    PairResult,
    ScoreEstimate,
)
from finetune.results.variant_scores import distinct, variant_scores

Clusters = NDArray[np.int64] | None

BASE_REASON = "the untuned base model has no seed: one fixed score"

SOLVED_METHOD = "one fit for all seeds"

SOLVED_REASON = (
    "solved, not trained in steps: a seed changes nothing, so the spread is zero by construction, not tested"
)


@dataclass(frozen=True)
class Measured:
    """One evaluation set's part of results.json."""

    estimates: dict[str, dict[str, ScoreEstimate]]
    """By variant, then by "set/metric"."""
    agreement: dict[str, AgreementResult]
    """By variant; those without it are not in it."""
    calibration: dict[str, CalibrationResult]
    comparisons: list[PairResult]
    """Without what only all comparisons together can decide."""


def measure(study: Study, task: EvaluationSet, level: float) -> Measured:
    """Compute everything on one evaluation set, whose predictions are read once and then let go."""
    # One model, stored for each seed, is one: agreeing with itself says nothing.
    every = {name: distinct(runs) for name, runs in study.everything.items()}
    # Where each seed has its own split, row i is another example in each run.
    same_rows = "split" not in study.vary
    clusters = study.clusters(task.name) if same_rows else None
    rng = np.random.default_rng(list(f"{study.digest} {task.name}".encode()))
    scores = {
        (name, metric.name): variant_scores(runs, task.name, metric.name, same_rows)
        for metric in task.metrics
        for name, runs in every.items()
    }
    estimates = {
        name: {
            task.key_of(metric.name): _estimate(study, name, scores[name, metric.name], metric, clusters, level)
            for metric in task.metrics
        }
        for name in every
    }
    alike = {name: agreement_of(runs, task, level, clusters) for name, runs in every.items() if same_rows}
    sure = {name: calibration_of(runs, task.name, rng, level) for name, runs in every.items()}
    pairs = [
        _compare(task, metric, pair, scores, rng, clusters, level) for metric in task.metrics for pair in _pairs(study)
    ]
    return Measured(
        estimates,
        {name: found for name, found in alike.items() if found is not None},
        {name: found for name, found in sure.items() if found is not None},
        pairs,
    )


def _pairs(study: Study) -> Iterator[tuple[str, str]]:
    """List all pairs of variants, or the others with the baseline; and each with the untuned base model."""
    if study.baseline is None:
        yield from combinations(study.variants, 2)
    else:
        yield from ((name, study.baseline) for name in study.variants if name != study.baseline)
    if study.base is not None:
        yield from ((name, BASE) for name in study.variants)


def _estimate(
    study: Study, variant: str, scores: stats.VariantScores, metric: Direction, clusters: Clusters, level: float
) -> ScoreEstimate:
    """Estimate a score over seeds: by the confidence sequence where the scores decided how many seeds there are."""
    if study.until is not None and scores.seeds is not None:
        found = stats.sequential_estimate(scores.scores, level)
    else:
        found = stats.estimate(scores.scores, level)
    if variant == BASE and found.n:
        found = replace(found, reason=BASE_REASON, method="one score, no seeds")
    elif scores.seeds is None and found.n:
        found = replace(found, reason=SOLVED_REASON, method=SOLVED_METHOD)
    spread = None if scores.contributions is None else stats.spread(scores.contributions, clusters, level)
    return ScoreEstimate(
        **asdict(found),
        sd_floor=spread.sd_floor if spread else None,
        sd_corrected=spread.sd_corrected if spread else None,
        sd_corrected_ci=spread.sd_corrected_ci if spread else None,
        sd_corrected_clipped=spread.clipped if spread else False,
        expected_best=stats.expected_best(scores.scores, metric.higher_is_better).tolist(),
    )


def _compare(
    task: EvaluationSet,
    metric: Direction,
    pair: tuple[str, str],
    scores: Mapping[tuple[str, str], stats.VariantScores],
    rng: np.random.Generator,
    clusters: Clusters,
    level: float,
) -> PairResult:
    left, right = pair
    other = scores[right, metric.name]
    if right == BASE and not len(other):
        found = stats.Comparison(0, level, "none", reason="the base model has no such score")
    else:
        found = stats.compare(scores[left, metric.name], other, rng, clusters, metric.higher_is_better, level)
    return PairResult(
        **asdict(found),
        task=task.name,
        metric=metric.name,
        left=left,
        right=right,
        higher_is_better=metric.higher_is_better,
        family="headline" if metric.name == task.metric else "other",
    )


def decide(pairs: Sequence[PairResult]) -> list[PairResult]:
    """Adjust the p-values of all comparisons together, and read the verdicts.

    Holm's correction runs over two families: all pairs and sets on headline metrics, from which the verdict is
    read, and all others, so that reporting more metrics does not blunt the headline. The tests of spread are two
    more.
    """
    decided = list(pairs)
    for family in ("headline", "other"):
        places = [place for place, pair in enumerate(pairs) if pair.family == family]
        adjusted = stats.holm([pairs[place].p_value for place in places])
        spreads = stats.holm([pairs[place].p_spread for place in places])
        for place, p_adjusted, p_spread in zip(places, adjusted, spreads, strict=True):
            pair = pairs[place]
            decided[place] = replace(
                pair,
                p_value_adjusted=p_adjusted,
                verdict=stats.verdict(pair, p_adjusted, pair.higher_is_better),
                p_spread_adjusted=p_spread,
                spread_verdict=stats.spread_verdict(pair.sd_ratio_ci, p_spread, pair.level),
            )
    return decided
