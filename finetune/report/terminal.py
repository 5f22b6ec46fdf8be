"""The table that ends `finetune run`: each variant's headline score, as many columns as the terminal has room for."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from finetune.report.units import NONE, THIN, seconds, short_count, unit

DISPENSABLE = ("time", "trained", "SD", "interval", "n", "failed")
"""Columns in the order in which a narrow terminal loses them."""


def table(results: dict[str, Any]) -> RenderableType:
    """One table per held-out task; results are those of results.json."""
    return Group(*(_Fitting(results, task) for task in results["tasks"]))


class _Fitting:
    """A table that leaves columns out until it fits the console."""

    def __init__(self, results: dict[str, Any], task: dict[str, Any]):
        self.task = task
        key = f"{task['name']}/{task['metric']}"
        self.rows = [_row(variant, key, task["metric"]) for variant in results["variants"]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for dropped in range(len(DISPENSABLE) + 1):
            candidate = self._table(set(DISPENSABLE[:dropped]))
            if Measurement.get(console, options.update(max_width=10_000), candidate).maximum <= options.max_width:
                break
        metric = unit(self.task["metric"])
        # Not the table's own title, which would wrap where a narrow table ends.
        yield Text(f"{self.task['name']}: {metric.heading} ({self.task['examples']:,} examples)", style="italic")
        yield candidate

    def _table(self, without: set[str]) -> Table:
        drawn = Table(box=None, pad_edge=False, header_style="bold")
        names = [name for name in self.rows[0] if name not in without] if self.rows else []
        for name in names:
            drawn.add_column(name, justify="left" if name == "variant" else "right", no_wrap=name != "variant")
        for row in self.rows:
            drawn.add_row(*(row[name] for name in names))
        return drawn


def _row(variant: dict[str, Any], key: str, metric: str) -> dict[str, Text]:
    found, failures, shown = variant["estimates"][key], variant["failures"], unit(metric)
    half = f" ± {shown.number((found['ci'][1] - found['ci'][0]) / 2)}" if found["ci"] else ""
    times = [run["seconds"] for run in variant["runs"] if run["seconds"] is not None]
    cells = {
        "variant": variant["name"],
        "score": shown.number(found["mean"]) + half,
        "interval": shown.interval(found["ci"]),
        "n": str(found["n"]),
        "SD": shown.number(found["sd"], more=1),
        "failed": f"{failures['count']}/{failures['n']}",
        "trained": short_count((variant["parameters"] or {}).get("trainable")),
        "time": seconds(fmean(times)) if times else NONE,
    }
    # Text and not markup: a variant's name may hold brackets. Plain spaces: not every terminal font has the thin one.
    texts = {name: Text(cell.replace(THIN, " ")) for name, cell in cells.items()}
    if failures["count"]:
        texts["failed"].stylize("bold red")
    return texts
