"""Results as tables: Arrow, whose `to_pandas()` gives a frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from finetune.results.reading import Study
from finetune.results.schema import PairResult, Results, ScoreEstimate


def scores_table(results: Results) -> pa.Table:
    """List every score of every run: `variant`, `seed`, `status`, `set`, `metric`, `score`."""
    return _table(
        {"variant": variant.name, "seed": run.seed, "status": run.status, **_of_key(key), "score": score}
        for variant in results.variants
        for run in variant.runs
        for key, score in run.scores.items()
    )


def estimates_table(results: Results) -> pa.Table:
    """List every variant's mean over seeds with its uncertainty: `variant`, `set`, `metric`, and the fields of
    :class:`~finetune.results.schema.ScoreEstimate`."""
    return _table(
        {"variant": variant.name, **_of_key(key), **_flat(found), **_in_all(found)}
        for variant in results.variants
        for key, found in variant.estimates.items()
    )


def pairs_table(pairs: Iterable[PairResult]) -> pa.Table:
    """List compared pairs of variants, a row each: the fields of :class:`~finetune.results.schema.PairResult`."""
    first = ("task", "metric", "left", "right", "difference", "ci_low", "ci_high", "p_value_adjusted", "verdict")
    rows = [_flat(pair) for pair in pairs]
    return _table({name: row[name] for name in (*first, *(row.keys() - {*first}))} for row in rows)


def predictions_table(study: Study, task: str) -> pa.Table:
    """Join every run's prediction store for an evaluation set into one table, with `variant` and `seed`."""
    columns = ("prediction", "reference", "score", "loss", "weight")
    found = []
    for variant, runs in study.everything.items():
        for run in runs:
            stored = run.predictions(task, columns)
            if stored is not None:
                rows = len(stored)
                own = {name: stored[name] for name in stored.column_names}
                who = {"variant": pa.array([variant] * rows), "seed": pa.array([run.seed] * rows, pa.int64())}
                found.append(pa.table({**who, **own}))
    return pa.concat_tables(found) if found else pa.table({})


def _of_key(key: str) -> dict[str, str]:
    """Split "set/metric" into its parts; a metric of the hub may have a stroke in its name."""
    task, _, metric = key.partition("/")
    return {"set": task, "metric": metric}


INTERVALS = ("Interval | None", "tuple[float, float] | None")
"""Types of fields that are intervals."""


def _flat(value: Any) -> dict[str, Any]:
    """The fields that are one number or word each; an interval is two."""
    flat: dict[str, Any] = {}
    for each in dataclasses.fields(value):
        entry = getattr(value, each.name)
        if each.type in INTERVALS:
            flat[f"{each.name}_low"], flat[f"{each.name}_high"] = (None, None) if entry is None else entry
        elif isinstance(entry, str | float | int | None):
            flat[each.name] = entry
    return {name: entry for name, entry in flat.items() if name != "expected"}


def _in_all(found: ScoreEstimate) -> dict[str, Any]:
    """The score over all runs, those that fail among them."""
    mean, ci = (None, None) if found.expected is None else (found.expected.mean, found.expected.ci)
    low, high = ci or (None, None)
    return {"expected_mean": mean, "expected_ci_low": low, "expected_ci_high": high}


def _table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows))
