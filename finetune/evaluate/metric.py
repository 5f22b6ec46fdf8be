"""Turns metrics into `evaluate.Metric` objects that need no download and leave no file.

Importing this module imports `evaluate`, and with it torch; `metrics.py` does so when a score is computed, not before.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import evaluate
from datasets import Features, Value

from finetune.metrics.base import EXTRACTED, Columns, Metric

INPUTS = {"prediction": "predictions", "reference": "references"}
"""What `evaluate` calls a column of the prediction store, where it is not its name."""

TEXTS = (*INPUTS, *EXTRACTED.values())
"""Columns that hold texts; others hold floats."""


class StoreMetric(evaluate.Metric):
    """A metric over columns of the prediction store, as a module of `evaluate` that keeps its table in memory."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric  # first: the parent asks for what it describes
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        return ""  # the parent's makes a folder below the home directory, which a table in memory has no use for

    def _info(self) -> evaluate.MetricInfo:
        columns = {INPUTS.get(name, name): Value("string" if name in TEXTS else "float64") for name in self._columns}
        description = inspect.getdoc(type(self._metric)) or ""
        return evaluate.MetricInfo(description=description, citation="", features=Features(columns))

    @property
    def _columns(self) -> tuple[str, ...]:
        return self._metric.columns

    def _compute(self, **columns: Any) -> dict[str, Any]:
        # Combined modules are handed the columns of all of them.
        own = {name: columns[INPUTS.get(name, name)] for name in self._columns}
        return {self._metric.name: self._metric.value(own)}


def compute(metrics: Sequence[Metric], columns: Columns) -> dict[str, float]:
    """Compute several metrics together, by name, from ``columns`` that have what each of them reads."""
    given = {INPUTS.get(name, name): columns[name] for metric in metrics for name in metric.columns}
    together = evaluate.combine([StoreMetric(metric) for metric in metrics])
    return {name: float(value) for name, value in together.compute(**given).items()}
