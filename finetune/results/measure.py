"""The results on one evaluation set: each variant's estimates, and every pair of variants compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from finetune import stats
from finetune.core.run_dir import BASE, FAILED
from finetune.metrics import unit
from finetune.results.agreement import agreement_of
from finetune.results.calibration import calibration_of
from finetune.results.reading import Run, Study
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

CHEAP_REASON = "made without training the model: one fixed score"

SOLVED_METHOD = "one fit for all seeds"

SOLVED_REASON = "solved exactly and not trained in steps, so a seed changes nothing and there is no SD to estimate"

NO_RUN_WORKS = "every run that has ended failed"

UNLEARNT = {
    "commonest-label": "commonest label",
    "commonest-set": "commonest set of labels",
    "training-mean": "training mean",
}
"""Baselines that always give the same answer, and what that is."""
"""The cheap baseline that a run which has learnt nothing is held against."""


@dataclass(frozen=True)
class Measured:
    """One evaluation set's part of results.json."""

    estimates: dict[str, dict[str, ScoreEstimate]]
    """By variant, then by "set/metric"."""
    agreement: dict[str, AgreementResult]
    """By variant; those without it are not in it."""
    calibration: dict[str, CalibrationResult]
    comparisons: list[PairResult]


@dataclass(frozen=True)
class Side:
    """A variant on one evaluation set and metric: the runs that work, and what is known of those that failed."""

    name: str
    scores: stats.VariantScores
    """Of the runs that work."""
    failed: list[float | None]
    """Scores of the runs that failed; None for one that has none."""
    failures: stats.FailureRate
    floor: float | None
    """What needs no training scores; None where that is not known."""
    floor_name: str = "untuned model"
    """What that is."""

    @property
    def fixed(self) -> bool:
        """Tell whether it is one model that no seed changes, and that cannot fail."""
        return self.scores.seeds is None

    @property
    def crashed(self) -> int:
        """Count the failed runs that have no score."""
        return sum(score is None for score in self.failed)

    def with_crashed(self) -> stats.VariantScores | None:
        """The scores, with those of crashed runs at what needs no training; None where that is not known."""
        if self.floor is None or self.scores.seeds is None:
            return None
        free = max(self.scores.seeds, default=0) + 1
        added = {free + number: self.floor for number in range(self.crashed)}
        own = dict(zip(self.scores.seeds, self.scores.scores.tolist(), strict=True))
        matrix = self.scores.contributions
        if matrix is not None:
            matrix = np.vstack([matrix, np.full((self.crashed, matrix.shape[1]), self.floor)])
        return stats.VariantScores.of(own | added, matrix)


@dataclass(frozen=True)
class Ground:
    """What all comparisons on one evaluation set and metric share."""

    task: EvaluationSet
    metric: Direction
    clusters: Clusters
    overlap: float
    sequential: bool
    level: float
    rng: np.random.Generator

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest score there can be."""
        return unit(self.metric.name).bounds

    @property
    def sign(self) -> int:
        """1 where a higher score is better, -1 where a lower one is."""
        return 1 if self.metric.higher_is_better else -1


def measure(study: Study, task: EvaluationSet, level: float) -> Measured:
    """Compute everything on one evaluation set, whose predictions are read once and then let go."""
    # One model, stored for each seed, is one: agreeing with itself says nothing.
    every = {name: distinct(runs) for name, runs in study.everything.items()}
    same_rows = not study.own_rows(task.name)
    clusters = study.clusters(task.name) if same_rows else None
    rng = np.random.default_rng(list(f"{study.digest} {task.name}".encode()))
    estimates: dict[str, dict[str, ScoreEstimate]] = {name: {} for name in every}
    pairs: list[PairResult] = []
    for metric in task.metrics:
        overlap, key = study.overlap(task.name), task.key_of(metric.name)
        ground = Ground(task, metric, clusters, overlap, study.until is not None, level, rng)
        sides = {name: side_of(study, name, runs, ground, same_rows) for name, runs in every.items()}
        for name, side in sides.items():
            estimates[name][key] = _estimate(side, ground, study)
        pairs += _compare_all(study, sides, ground)
    alike = {name: agreement_of(works(runs), task, level, clusters) for name, runs in every.items() if same_rows}
    sure = {
        name: calibration_of(works(runs), task.name, rng, level, clusters, same_rows) for name, runs in every.items()
    }
    return Measured(
        estimates,
        {name: found for name, found in alike.items() if found is not None},
        {name: found for name, found in sure.items() if found is not None},
        pairs,
    )


def side_of(study: Study, name: str, runs: Sequence[Run], ground: Ground, same_rows: bool = True) -> Side:
    """Collect what a variant's runs come to on one evaluation set and metric."""
    key = ground.task.key_of(ground.metric.name)
    failed = [run for run in runs if run.result["status"] in FAILED]
    return Side(
        name,
        variant_scores(works(runs), ground.task.name, ground.metric.name, same_rows),
        [run.scores.get(key) for run in failed],
        failures_of(study.everything[name]),
        *_floor(study, ground, key),
    )


def works(runs: Sequence[Run]) -> list[Run]:
    """The runs that did not fail."""
    return [run for run in runs if run.result["status"] not in FAILED]


def failures_of(runs: Sequence[Run], level: float = 0.95) -> stats.FailureRate:
    """Count the runs that have ended, and those of them that failed."""
    ended = [run.result["status"] for run in runs if run.result["status"] != "interrupted"]
    return stats.failure_rate(sum(status in FAILED for status in ended), len(ended), level)


def _floor(study: Study, ground: Ground, key: str) -> tuple[float | None, str]:
    """What needs no training scores, and what that is: always the same answer, or else the untuned model."""
    for name, said in UNLEARNT.items():
        same = study.baselines.get(name)
        if same is not None and key in same.scores:
            return same.scores[key], said
    if ground.metric.name == "accuracy" and ground.task.majority is not None:
        return ground.task.majority, "commonest label"
    return None if study.base is None else study.base.scores.get(key), "untuned model"


def _estimate(side: Side, ground: Ground, study: Study) -> ScoreEstimate:
    """Estimate a score over the seeds that work, and what the variant gives in all."""
    scores, level = side.scores, ground.level
    found = stats.estimate(
        scores.scores, level, scores.contributions, ground.clusters, ground.bounds, ground.overlap, ground.sequential
    )
    if side.fixed and found.n:
        own = scores.contributions
        ci = None if own is None else stats.interval_of_mean(own, level, ground.clusters, ground.bounds)
        reason = BASE_REASON if side.name == BASE else CHEAP_REASON if side.name in study.baselines else SOLVED_REASON
        method = SOLVED_METHOD if reason == SOLVED_REASON else "one score, no seeds"
        found = replace(found, reason=reason, method=method, ci=ci)
    elif not found.n and side.failed:
        found = replace(found, reason=NO_RUN_WORKS)
    spread = None if scores.contributions is None else stats.spread(scores.contributions, ground.clusters, level)
    in_all = stats.expected(
        scores.scores,
        side.failed,
        side.floor,
        scores.contributions,
        ground.clusters,
        ground.bounds,
        level,
        ground.overlap,
        ground.sequential,
    )
    bounds, higher = ground.bounds, ground.metric.higher_is_better
    bounded = bounds is not None and np.isfinite(bounds).all() and len(scores) > 1
    bands = stats.expected_best_intervals(scores.scores, bounds, higher, level) if bounds and bounded else []
    return ScoreEstimate(
        **asdict(found),
        expected=None if side.fixed else in_all,
        sd_floor=spread.sd_floor if spread else None,
        sd_corrected=spread.sd_corrected if spread else None,
        sd_corrected_ci=spread.sd_corrected_ci if spread else None,
        sd_corrected_clipped=spread.clipped if spread else False,
        expected_best=stats.expected_best(scores.scores, higher).tolist(),
        expected_best_ci=bands,
    )


def _compare_all(study: Study, sides: Mapping[str, Side], ground: Ground) -> list[PairResult]:
    """Compare all pairs of variants, or the others with the baseline; and each with what needs no tuning.

    The variants' pairs are one family, and those with the untuned model and the cheap baselines another.
    """
    if study.baseline is None:
        rivals = list(combinations(study.variants, 2))
    else:
        rivals = [(name, study.baseline) for name in study.variants if name != study.baseline]
    fixed = [name for name in sides if name not in study.variants]
    all_of = len(study.variants) if study.baseline is None else None
    families = [
        (rivals, stats.family_of(len(rivals), all_of, ground.sequential)),
        ([(name, other) for other in fixed for name in study.variants], None),
    ]
    found = []
    for pairs, family in families:
        family = family or stats.family_of(len(pairs), None, ground.sequential)
        found += [paired for paired in judged(pairs, sides, sides, family, ground)]
    return found


def judged(
    pairs: Sequence[tuple[str, str]],
    lefts: Mapping[str, Side],
    rights: Mapping[str, Side],
    family: stats.Family,
    ground: Ground,
) -> Iterator[PairResult]:
    """Compare pairs of sides on one evaluation set and metric, and judge them together."""
    metric, clusters = ground.metric, ground.clusters

    def difference(left: stats.VariantScores, right: stats.VariantScores) -> stats.Compared:
        return stats.difference_of(
            left, right, ground.rng, clusters, metric.higher_is_better, ground.level, ground.overlap
        )

    compared = [difference(lefts[left].scores, rights[right].scores) for left, right in pairs]
    means = {name: float(side.scores.scores.mean()) for name, side in {**lefts, **rights}.items() if len(side.scores)}
    named = {name for pair in pairs for name in pair}
    means = {name: mean for name, mean in means.items() if name in named}
    found = stats.judge(compared, family, pairs, means, metric.higher_is_better)
    spreads = stats.holm([pair.p_spread for pair in found])
    for (left, right), one, p_spread in zip(pairs, found, spreads, strict=True):
        yield _verdict(one, lefts[left], rights[right], p_spread, ground, family, difference)


def _verdict(
    found: stats.Comparison,
    left: Side,
    right: Side,
    p_spread: float | None,
    ground: Ground,
    family: stats.Family,
    difference: Callable[[stats.VariantScores, stats.VariantScores], stats.Compared],
) -> PairResult:
    """Say what a difference allows to say: of runs that work, and of all."""
    word = stats.verdict(found, ground.metric.higher_is_better)
    reason = found.reason
    if word != "undecided" and (winner := left if word == "better" else right).crashed:
        with_crashed = winner.with_crashed()
        sides = (with_crashed, right.scores) if winner is left else (left.scores, with_crashed)
        again = None
        if with_crashed is not None:
            again = stats.judge([difference(*sides)], family)[0]
        if again is None or stats.verdict(again, ground.metric.higher_is_better) != word:
            counted = "what needs no training scores" if with_crashed is None else f"the {winner.floor_name}'s score"
            reason = (
                f"{winner.crashed} of {winner.failures.n} runs of {winner.name} have no score; counted at {counted}, "
                "the difference does not hold"
            )
            word = "undecided"
    return PairResult(
        **(asdict(found) | {"reason": reason}),
        task=ground.task.name,
        metric=ground.metric.name,
        left=left.name,
        right=right.name,
        higher_is_better=ground.metric.higher_is_better,
        family="headline" if ground.metric.name == ground.task.metric else "other",
        verdict=word,
        verdict_overall=_overall(found, word, left, right, ground),
        p_failures=stats.told_apart(left.failures, right.failures),
        p_spread_adjusted=p_spread,
        spread_verdict=stats.spread_verdict(found.sd_ratio_ci, p_spread, found.level),
    )


def _overall(found: stats.Comparison, word: stats.Verdict, left: Side, right: Side, ground: Ground) -> stats.Verdict:
    """Tell whether a variant that is better when it works is better in all, however often it may fail.

    It is where the most that its failures could cost, their rate's limit times what a failed run loses, is less than
    it is ahead at least.
    """
    if word == "undecided" or found.ci is None:
        return "undecided"
    winner = left if word == "better" else right
    if winner.fixed:
        return word
    mean = float(winner.scores.scores.mean())
    holds = stats.holds_in_all(
        found.ci, mean, winner.failed, winner.floor, winner.failures, ground.metric.higher_is_better
    )
    return word if holds else "undecided"
