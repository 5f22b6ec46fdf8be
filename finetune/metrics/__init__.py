"""Metrics: one class each, with name, unit, direction, columns, value and contributions; without torch."""

from __future__ import annotations

from functools import cache

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.harness import unit_of
from finetune.metrics.unit import Unit


@cache
def find(name: str) -> Metric | None:
    """The metric called ``name``; None for one that has no class here, such as those of a hub."""
    found = METRICS.all().get(name)
    metric: Metric | None = None if found is None else found()
    return metric


def unit(name: str) -> Unit:
    """The unit of a metric; unknown ones are shown as they are, with three decimals."""
    found = find(name)
    return (unit_of(name) or Unit(name)) if found is None else found.unit


def contributions(name: str, columns: Columns) -> Values | None:
    """Compute what each example adds to the metric ``name`` for one run: see :meth:`Metric.contributions`.

    None for a metric that has no class here, without examples, or without the columns it needs.
    """
    metric = find(name)
    if metric is None:
        return None
    wanted = [columns.get(column) for column in metric.contributing]
    if any(column is None or not len(column) for column in wanted):
        return None
    return metric.contributions(columns)
