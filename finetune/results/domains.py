"""In-domain against shifted: what every variant loses on other data.

Seeds that agree in domain may differ widely out of it (McCoy, Min and Linzen 2020): the spread stands beside the drop.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune import stats
from finetune.core.run_dir import FAILED
from finetune.results.schema import EvaluationSet, Results, VariantResult


@dataclass(frozen=True)
class Shift:
    """The loss of one variant on one evaluation set of other data."""

    variant: str
    shifted: str
    """Name of the set."""
    drop: stats.Estimate
    """Over the seeds that work and have both scores, in the headline metric's unit, positive for a loss."""


def shifts_of(results: Results) -> list[Shift]:
    """Hold each variant on each set of other data against the in-domain set; empty where either is missing."""
    inside, shifted = domains_of(results)
    if inside is None:
        return []
    return [_shift(variant, inside, task, results.level) for task in shifted for variant in results.variants]


def domains_of(results: Results) -> tuple[EvaluationSet | None, list[EvaluationSet]]:
    """Find the in-domain set, and those that have the same headline metric on other data."""
    inside = next((task for task in results.tasks if task.role == "in-domain"), None)
    if inside is None:
        return None, []
    others = [task for task in results.tasks if task.role == "shifted" and task.metric == inside.metric]
    return (inside, others) if others else (None, [])


def _shift(variant: VariantResult, inside: EvaluationSet, task: EvaluationSet, level: float) -> Shift:
    home, away = inside.key, task.key_of(inside.metric)
    scores = [run.scores for run in variant.runs if run.status not in FAILED]
    drops = [inside.sign * (score[home] - score[away]) for score in scores if home in score and away in score]
    return Shift(variant.name, task.name, stats.estimate(drops, level))
