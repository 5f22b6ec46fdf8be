"""Turns metrics into `evaluate.Metric` objects that need no download and leave no file.

Importing this module imports `evaluate`, and with it torch; `metrics.py` does so when a score is computed, not before.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import evaluate
from datasets import Features, Value
from datasets import Sequence as ListOf

from finetune.metrics.base import EXTRACTED, Columns, Metric

INPUTS = {"prediction": "predictions", "reference": "references"}
"""What `evaluate` calls a column of the prediction store, where it is not its name."""

KINDS = {
    **dict.fromkeys((*INPUTS, *EXTRACTED.values()), Value("string")),
    "probabilities": ListOf(Value("float32")),
}
"""What columns hold that are not floats."""

LABELS = "labels"
"""What metrics read beside columns: as long as there are labels, and not as there are rows."""


class StoreMetric(evaluate.Metric):
    """A metric over columns of the prediction store, as a module of `evaluate` that keeps its table in memory."""

    def __init__(self, metric: Metric, labels: Sequence[str] = ()) -> None:
        self._metric = metric  # first: the parent asks for what it describes
        self._labels = labels
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        return ""  # the parent's makes a folder below the home directory, which a table in memory has no use for

    def _info(self) -> evaluate.MetricInfo:
        columns = {INPUTS.get(name, name): KINDS.get(name, Value("float64")) for name in self._columns}
        description = inspect.getdoc(type(self._metric)) or ""
        return evaluate.MetricInfo(description=description, citation="", features=Features(columns))

    @property
    def _columns(self) -> tuple[str, ...]:
        return tuple(name for name in self._metric.columns if name != LABELS)

    def _compute(self, **columns: Any) -> dict[str, Any]:
        # Combined modules are handed the columns of all of them.
        own = {name: columns[INPUTS.get(name, name)] for name in self._columns} | {LABELS: self._labels}
        return {self._metric.name: self._metric.value(own)}


def compute(metrics: Sequence[Metric], columns: Columns) -> dict[str, float]:
    """Compute several metrics together, by name, from ``columns`` that have what each of them reads."""
    made = [StoreMetric(metric, columns.get(LABELS) or ()) for metric in metrics]
    given = {INPUTS.get(name, name): columns[name] for each in made for name in each._columns}
    together = evaluate.combine(made)
    return {name: float(value) for name, value in together.compute(**given).items()}
