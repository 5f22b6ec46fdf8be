"""A variant's scores by one metric, in the form in which statistics compare them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from finetune import metrics
from finetune.results.reading import TEXTS, Run, is_mean
from finetune.stats import VariantScores
from finetune.stats.agreement import codes_of

Floats = NDArray[np.float64]


def variant_scores(runs: Sequence[Run], task: str, metric: str, by_example: bool = True) -> VariantScores:
    """Collect the scores of the runs that have the metric, in the order given; one without a seed is a fixed model.

    ``by_example`` is false where row i is not the same example in every run.
    """
    key = f"{task}/{metric}"
    scored = [run for run in runs if key in run.scores]
    scores = [run.scores[key] for run in scored]
    matrix = contributions(scored, task, metric, scores) if by_example and scored else None
    if scored and (scored[0].seed is None or is_fixed(runs)):
        return VariantScores.fixed(scores[0], None if matrix is None else matrix[0])
    seeds = [run.seed for run in scored if run.seed is not None]
    return VariantScores.of(dict(zip(seeds, scores, strict=True)), matrix)


def is_fixed(runs: Sequence[Run]) -> bool:
    """Tell whether the runs were solved on the same examples: one model, stored for each seed."""
    solved = [bool((run.result.get("training") or {}).get("solved")) for run in runs if run.scores]
    splits = {(run.result.get("streams") or {}).get("split") for run in runs if run.scores}
    return bool(solved) and all(solved) and len(splits) == 1


def distinct(runs: Sequence[Run]) -> list[Run]:
    """The runs, or one of them where all are the same model."""
    return [run for run in runs if run.scores][:1] if is_fixed(runs) else list(runs)


def contributions(runs: Sequence[Run], task: str, metric: str, scores: Sequence[float]) -> Floats | None:
    """Compute what each example adds to each run's score, (runs, examples); None unless row means are the scores.

    The stored score of each example where its mean is the metric, which then may be one of the hub's.
    """
    for rows in (
        (run.example_scores(task) for run in runs),
        (_computed(run, task, metric) for run in runs),
    ):
        matrix = _stacked(rows)
        if matrix is not None and is_mean(matrix, list(scores)):
            return matrix
    return None


def _stacked(rows: Iterable[Floats | None]) -> Floats | None:
    stored: list[Floats] = []
    for row in rows:
        if row is None or not len(row) or (stored and row.shape != stored[0].shape):
            return None
        stored.append(row)
    return np.stack(stored) if stored else None


def _computed(run: Run, task: str, name: str) -> Floats | None:
    metric = metrics.find(name)
    if metric is None:
        return run.example_scores(task, f"own:{name}") if f"own:{name}" in run.stored(task) else None
    wanted, stored = metric.contributing, run.stored(task)
    sources = {column: metric.source(column, stored) for column in wanted if column != "labels"}
    table = run.predictions(task, list(dict.fromkeys(sources.values())), TEXTS if metric.by_equality else ())
    if table is None:
        return None
    if metric.by_equality:
        columns = [table[source].combine_chunks().dictionary_encode() for source in sources.values()]
        numbers = codes_of([column.dictionary.to_pylist() for column in columns])
        coded = [own[column.indices.to_numpy()] for own, column in zip(numbers, columns, strict=True)]
        return metrics.contributions(name, dict(zip(sources, coded, strict=True)))
    labels = {"labels": json.loads(table.schema.metadata[b"labels"])} if "labels" in wanted else {}
    found = {column: _values(table[source]) for column, source in sources.items()}
    return metrics.contributions(name, found | labels)


def _values(column: Any) -> list[str] | Floats | None:
    if pa.types.is_string(column.type):
        return list(column.to_pylist())
    if column.null_count:
        return None
    if pa.types.is_list(column.type):  # of probabilities
        rows = column.combine_chunks()
        return np.asarray(pc.list_flatten(rows).to_numpy().reshape(len(rows), -1))
    return column.to_numpy().astype(float)
