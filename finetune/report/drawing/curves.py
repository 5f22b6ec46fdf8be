"""Drawings of what training recorded by step: a panel per variant, with every seed's line, or many seeds' range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from finetune.report.drawing.panels import BOTTOM, TOP, Axis, Points, band, frame, gathered, steps_axis, values_axis
from finetune.report.drawing.plots import COLOURS
from finetune.report.drawing.svg import cross, polyline, tag
from finetune.results.overfitting import validations
from finetune.results.reading import Run

Floats = NDArray[np.float64]
Line = tuple[Floats, Floats]
"""Steps (windows,), and the values of several runs there (runs, windows), NaN where a run has none."""

MANY = 10
"""Seeds drawn one by one; of more, the median and the range."""


@dataclass(frozen=True)
class Quantity:
    """A quantity that is drawn by step."""

    title: str
    solid: Callable[[Run], Points]
    dashed: Callable[[Run], Points] = lambda run: []
    shared: bool = True
    """One vertical scale for all variants."""
    logarithmic: bool = True
    """Whether the vertical scale is, where the values span decades."""
    each: bool = True
    """Seeds one by one, unless there are many; what a schedule decides is the same for all."""


def recorded(key: str) -> Callable[[Run], Points]:
    """Read (step, value) that a run's training recorded under ``key``; steps without a finite value are left out."""
    return lambda run: [(r["step"], r[key]) for r in run.metrics if r["kind"] == "train" and r.get(key) is not None]


LOSS = Quantity(
    "loss",
    recorded("loss"),
    lambda run: [(r["step"], r["scores"]["loss"]) for r in validations(run)],
    logarithmic=False,
)
NORM = Quantity("gradient norm", recorded("gradient_norm"))
RATE = Quantity("learning rate", recorded("learning_rate"), shared=False, each=False)


def step_panels(quantity: Quantity, variants: dict[str, list[Run]]) -> list[Markup]:
    """One panel per variant, which has a run at least; none where no run has recorded anything of it."""
    lines = {
        name: (gathered([quantity.solid(run) for run in runs]), gathered([quantity.dashed(run) for run in runs]))
        for name, runs in variants.items()
    }
    own = {name: _values(runs, lines[name]) for name, runs in variants.items()}
    pooled = [value for values in own.values() for value in values]
    if not pooled:
        return []
    panels = []
    for index, (name, runs) in enumerate(variants.items()):
        seen = pooled if quantity.shared else own[name] or pooled
        y = values_axis(seen, quantity.title, quantity.logarithmic)
        panels.append(_panel(quantity, name, runs, lines[name], y, index % COLOURS))
    return panels


def _values(runs: list[Run], lines: tuple[Line, Line]) -> list[float]:
    """Collect the values that the vertical scale shows: an explosion would flatten all else, and leaves at the top."""
    healthy = [row for row, run in enumerate(runs) if not _diverged(run)]
    for rows in (healthy, range(len(runs))):
        every = np.concatenate([values[list(rows)].ravel() for _, values in lines])
        if np.isfinite(every).any():
            return every[np.isfinite(every)].tolist()
    return []


def _diverged(run: Run) -> bool:
    return run.result["status"] == "diverged"


def _panel(quantity: Quantity, name: str, runs: list[Run], lines: tuple[Line, Line], y: Axis, colour: int) -> Markup:
    x = steps_axis(max((float(steps[-1]) for steps, _ in lines if len(steps)), default=1.0))
    few = len(runs) <= MANY
    alone = [row for row, run in enumerate(runs) if quantity.each and (few or _diverged(run))]
    together = [row for row in range(len(runs)) if row not in alone]
    parts = [_together(name, lines, together, x, y)] if together else []
    parts += [_alone(runs[row], row, lines, x, y) for row in alone]
    if not any(len(steps) for steps, _ in lines):
        middle = (x.scale.start + x.scale.end) / 2
        parts = [tag("text", "no training steps", x=middle, y=(TOP + BOTTOM) / 2, text_anchor="middle", class_="tick")]
    label = f"{quantity.title.capitalize()} of {name} by step, {len(runs)} seeds"
    return frame(name, label, x, y, parts, f"c{colour}")


def _alone(run: Run, row: int, lines: tuple[Line, Line], x: Axis, y: Axis) -> Markup:
    """One run's lines, and a cross at the end of one that diverged."""
    title = f"{run.variant}, seed {run.seed}"
    solid, dashed = (
        [(x(s), y(v)) for s, v in zip(steps, values[row], strict=True) if np.isfinite(v)] for steps, values in lines
    )
    parts = [tag("title", title)]
    parts += [polyline(points, class_) for points, class_ in ((solid, "curve"), (dashed, "curve scored")) if points]
    parts += [_dot(*point) for point in dashed]
    if _diverged(run):
        at, height = solid[-1] if solid else (x(0), y(0))
        parts.append(cross(at, height, f"{title} diverged: {run.result.get('reason')}"))
    return tag("g", *parts)


def _together(name: str, lines: tuple[Line, Line], rows: list[int], x: Axis, y: Axis) -> Markup:
    """The median of several runs' lines with their range: a band behind a solid line, a stroke at each validation."""
    (places, lows, middles, highs), scored = (_summary(*line, rows, x, y) for line in lines)
    parts = [tag("title", f"{name}: median and range of {len(rows)} seeds")]
    if lows != highs:
        parts.append(band(places, lows, highs))
    if places:
        parts.append(polyline(list(zip(places, middles, strict=True)), "curve median"))
    if scored[0]:
        parts.append(polyline(list(zip(scored[0], scored[2], strict=True)), "curve scored"))
    for at, low, middle, high in zip(*scored, strict=True):
        parts += [tag("line", x1=at, x2=at, y1=low, y2=high, class_="curve scored"), _dot(at, middle)]
    return tag("g", *parts)


def _summary(steps: Floats, values: Floats, rows: list[int], x: Axis, y: Axis) -> list[list[float]]:
    """Find, in pixels, where any of the runs ``rows`` has a value, and the lowest, median and highest there."""
    known = np.isfinite(values[rows]).any(axis=0)
    chosen = values[rows][:, known]
    summaries = (summary(chosen, axis=0) for summary in (np.nanmin, np.nanmedian, np.nanmax))
    return [[x(step) for step in steps[known]], *([y(value) for value in summary] for summary in summaries)]


def _dot(at: float, height: float) -> Markup:
    return tag("circle", cx=at, cy=height, r=1.8, class_="scored-dot")
