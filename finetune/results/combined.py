"""Combinations of a variant's seeds (soups, ensembles), beside the mean of the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from finetune import stats
from finetune.results.reading import Run, is_mean
from finetune.results.schema import CombinedResult, Direction, EvaluationSet, GainResult

Clusters = NDArray[np.int64] | None


def combined_of(
    made: Run,
    runs: Sequence[Run],
    tasks: Sequence[EvaluationSet],
    clusters: Mapping[str, Clusters],
    level: float,
) -> CombinedResult:
    """Describe one combination; ``runs`` are the variant's, ``tasks`` the evaluation sets whose examples runs share,
    and ``clusters`` say by set which of these belong together."""
    result = made.result
    members = [run for run in runs if run.seed in result["of"]]
    keys = [(task, metric) for task in tasks for metric in task.metrics]
    return CombinedResult(
        kind=result["kind"],
        status=result["status"],
        reason=result.get("reason"),
        seeds=result["seeds"],
        of=result["of"],
        seconds=result.get("seconds"),
        scores=made.scores,
        gain={
            task.key_of(metric.name): found
            for task, metric in keys
            if len(members) == len(result["of"])
            and (found := _gain(made, members, task.name, metric, clusters[task.name], level))
        },
    )


def _gain(
    made: Run, members: Sequence[Run], task: str, metric: Direction, clusters: Clusters, level: float
) -> GainResult | None:
    """Compute how much better ``made`` is on an evaluation set than the mean of ``members``.

    None where a score is missing; with an interval where the metric is a mean over examples.
    """
    key, sign = f"{task}/{metric.name}", 1 if metric.higher_is_better else -1
    score, others = made.scores.get(key), [run.scores.get(key) for run in members]
    known = [other for other in others if other is not None]
    if score is None or not known or len(known) < len(others):
        return None
    mean = float(np.mean(known))
    found = stats.Gain(sign * (score - mean), None, level, "the metric is no mean over examples")
    for column in ("score", "loss"):
        rows = [run.example_scores(task, column) for run in (made, *members)]
        stored = [sign * row for row in rows if row is not None]
        alike = len(stored) == len(rows) and len({row.shape for row in stored}) == 1
        if alike and is_mean(np.stack(stored), [sign * value for value in (score, *known)]):
            found = stats.gain(stored[0], np.stack(stored[1:]), level, clusters)
            break
    return GainResult(**asdict(found), mean_seed=mean)
