"""Entities by type: how well each is found, by variant, over seeds and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune import stats
from finetune.metrics.entities import counts_by_type
from finetune.metrics.sums import ratio_of_sums
from finetune.results.measure import works
from finetune.results.reading import TEXTS, Run, Study
from finetune.results.schema import EvaluationSet
from finetune.results.variant_scores import distinct


@dataclass(frozen=True)
class TypeScores:
    """How well a variant finds the entities of one type."""

    variant: str
    kind: str
    """The type; empty: all of them together."""
    support: int
    """Entities that are wanted."""
    f1: stats.Estimate
    precision: stats.Estimate
    """Of the entities said, the share that is wanted; 0 where none is said."""
    recall: stats.Estimate
    """Of the entities wanted, the share that is said."""


def entities_of(study: Study, task: EvaluationSet, level: float = 0.95) -> list[TypeScores]:
    """Compute, for all types together and for each that is said or wanted, by how many are wanted, the scores of each
    variant and baseline over its runs that work. Empty where a task does not answer with tags."""
    if study.facts(task.name).get("answer") != "tags":
        return []
    tables = {name: _tables(works(distinct(runs)), task.name) for name, runs in study.everything.items()}
    every = {name: [_counted(table) for table in found] for name, found in tables.items() if found}
    wanted: dict[str, int] = {}
    for run in (run for runs in every.values() for run in runs):
        for kind, counted in run.items():
            wanted[kind] = max(wanted.get(kind, 0), int(counted[:, 2].sum()))
    kinds = sorted(wanted, key=lambda kind: (kind != "", -wanted[kind], kind))
    return [_scores(study, task, name, kind, runs, level) for kind in kinds for name, runs in every.items()]


def _tables(runs: Sequence[Run], task: str) -> list[dict[str, list[str]]]:
    """Read the texts of each run's predictions."""
    stored = (run.predictions(task, TEXTS, TEXTS) for run in runs)
    return [{name: table[name].to_pylist() for name in TEXTS} for table in stored if table is not None and len(table)]


def _counted(texts: dict[str, list[str]]) -> dict[str, NDArray[np.int64]]:
    """Count the entities found, said and wanted of each type, and of all together: (examples, 3)."""
    found = counts_by_type(texts)
    return {"": sum(found.values(), np.zeros((len(texts["reference"]), 3), np.int64)), **found}


def _scores(
    study: Study, task: EvaluationSet, variant: str, kind: str, runs: Sequence[dict[str, Any]], level: float
) -> TypeScores:
    counted = [run.get(kind, np.zeros_like(run[""])).astype(float) for run in runs]
    same = not study.own_rows(task.name) and len({len(each) for each in counted}) == 1
    clusters = study.clusters(task.name) if same else None

    def estimate(above: Sequence[int], below: Sequence[int]) -> stats.Estimate:
        rows = [ratio_of_sums(each[:, above].sum(axis=1), each[:, below].sum(axis=1)) for each in counted]
        values = [float(row.mean()) for row in rows]
        matrix = np.stack(rows) if same else None
        overlap, sequential = study.overlap(task.name), study.until is not None
        found = stats.estimate(values, level, matrix, clusters, stats.SHARE, overlap, sequential)
        if matrix is not None and len(np.unique(matrix)) == 1:  # all are found or none, of however few: it is not known
            return replace(found, ci=None)
        if len(values) == 1 and matrix is not None:  # new examples alone
            return replace(found, ci=stats.interval_of_mean(matrix, level, clusters, stats.SHARE))
        return found

    support = int(max(each[:, 2].sum() for each in counted))
    return TypeScores(variant, kind, support, estimate([0, 0], [1, 2]), estimate([0], [1]), estimate([0], [2]))
