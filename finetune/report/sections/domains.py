"""In-domain against shifted: what every variant loses on other data, and how far its seeds part there.

Seeds that agree in domain may differ widely out of it (McCoy, Min and Linzen 2020): the spread stands beside the drop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from finetune.core.numbers import NONE
from finetune.core.run_dir import FAILED
from finetune.metrics import unit
from finetune.metrics.unit import Unit
from finetune.report.blocks import Block, Cell, Column, Panels, Section, Table, Text, Tone
from finetune.report.drawing.panels import LEFT, RIGHT, Axis, frame, linear
from finetune.report.drawing.plots import COLOURS, fit
from finetune.report.drawing.svg import Scale, cross, polyline, tag
from finetune.results.domains import domains_of, shifts_of
from finetune.results.reading import Study
from finetune.results.schema import EvaluationSet, Results, RunResult, VariantResult
from finetune.stats import Estimate

MOST = 6
"""Tasks that a drawing has room for."""

METHODS = [
    (
        "Drop",
        "Score in domain less score on the shifted data, turned so that a positive drop is a loss, seed by seed; then "
        "the mean over seeds, with an interval like a score's. It covers which seeds there were, not which examples.",
    )
]
"""(term, sentence) pairs for the section on methods."""


def sections(study: Study, results: Results) -> list[Section]:
    """Write scores, drops and spreads by evaluation set, and a line per seed; none with one kind of data only."""
    inside, shifted = domains_of(results)
    if inside is None:
        return []
    tasks, metric = [inside, *shifted], unit(inside.metric)
    intro = (
        f"The same task on data that training came from ({inside.name}) and on other data. Seeds that agree on the "
        "one may part on the other, so look at the spread as well as at the drop. To compare the spread of sets of "
        "different sizes, use the SD without noise."
    )
    blocks: list[Block] = [Text(intro, "muted"), _table(results, tasks, metric)]
    drawn = [variant for variant in results.variants if not variant.is_base]
    panels = _panels(drawn, tasks[:MOST], metric)
    if panels:
        first = "" if len(tasks) <= MOST else f" The first {MOST} of {len(tasks)} tasks are drawn."
        caption = f"A line is a seed, from task to task; a cross a failed run; a thick stroke the mean.{first}"
        blocks.append(Panels(panels, caption))
    return [Section("domains", "In-domain against shifted", blocks)]


def _table(results: Results, tasks: Sequence[EvaluationSet], metric: Unit) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("data", numeric=False),
        Column(metric.heading, "Mean over seeds, and its 95 % interval"),
        Column("drop", "Loss against the first row, paired by seed, with its 95 % interval over seeds"),
        Column("SD", "Standard deviation over seeds, and its 95 % interval"),
        Column("SD without noise", "What would remain on an endless test set, and its 95 % interval"),
        Column("lowest", "The worst seed's score"),
        Column("highest"),
    ]
    drops = {(shift.variant, shift.shifted): shift.drop for shift in shifts_of(results)}
    rows = [
        _row(variant, index, task, metric, drops.get((variant.name, task.name)))
        for index, variant in enumerate(results.variants)
        for task in tasks
    ]
    return Table(columns, rows)


def _row(variant: VariantResult, index: int, task: EvaluationSet, metric: Unit, drop: Estimate | None) -> list[Cell]:
    found = variant.estimates[task.key]
    dropped = Cell(NONE)
    if drop is not None:
        low, high = drop.ci or (0.0, 0.0)
        tone: Tone = "bad" if low > 0 else "good" if high < 0 else ""
        dropped = Cell(metric.number(drop.mean, signed=True), _interval(metric, drop.ci, signed=True), tone)
    return [
        Cell(variant.name, colour=None if variant.is_base else index % COLOURS),
        Cell(task.name),
        Cell(metric.number(found.mean), _interval(metric, found.ci)),
        dropped,
        Cell(metric.number(found.sd, more=1), _interval(metric, found.sd_ci, more=1)),
        Cell(metric.number(found.sd_corrected, more=1), _interval(metric, found.sd_corrected_ci, more=1)),
        Cell(metric.number(found.min)),
        Cell(metric.number(found.max)),
    ]


def _interval(metric: Unit, bounds: Iterable[float] | None, signed: bool = False, more: int = 0) -> str:
    return f"[{', '.join(metric.number(bound, more, signed) for bound in bounds)}]" if bounds else ""


def _panels(variants: Sequence[VariantResult], tasks: Sequence[EvaluationSet], metric: Unit) -> list[Markup]:
    """A panel per variant, all on one vertical scale."""
    keys = [task.key for task in tasks]
    scores = [run.scores[key] for variant in variants for run in variant.runs for key in keys if key in run.scores]
    if not scores:
        return []
    low, high = min(scores) * metric.scale, max(scores) * metric.scale
    reach = (high - low) or abs(high) * 0.02 or 1.0
    y = linear(low - 0.05 * reach, high + 0.05 * reach, metric.heading)
    gap = (RIGHT - LEFT) / len(tasks)
    x = Axis(
        Scale(0, len(tasks) - 1, LEFT + gap / 2, RIGHT - gap / 2),
        [(place, fit(task.name, int(gap / 7))) for place, task in enumerate(tasks)],
    )
    return [_panel(variant, index % COLOURS, keys, metric, x, y) for index, variant in enumerate(variants)]


def _panel(variant: VariantResult, colour: int, keys: list[str], metric: Unit, x: Axis, y: Axis) -> Markup:
    parts = []
    for run in variant.runs:
        places = [(x(place), y(run.scores[key] * metric.scale)) for place, key in enumerate(keys) if key in run.scores]
        if places:
            parts.append(_seed(variant.name, run, places, keys, metric))
    for place, key in enumerate(keys):
        mean = variant.estimates[key].mean
        if mean is not None:
            height = y(mean * metric.scale)
            parts.append(tag("line", x1=x(place) - 12, x2=x(place) + 12, y1=height, y2=height, class_="mean"))
    label = f"{metric.label} of {variant.name} by task, {len(variant.runs)} seeds"
    return frame(variant.name, label, x, y, parts, f"c{colour}")


def _seed(variant: str, run: RunResult, places: list[tuple[float, float]], keys: list[str], metric: Unit) -> Markup:
    """Draw one seed's line from evaluation set to evaluation set."""
    scores = ", ".join(f"{metric.value(run.scores.get(key))} on {key.partition('/')[0]}" for key in keys)
    title = f"{variant}, seed {run.seed}: {scores}"
    parts = [tag("title", title), polyline(places, "curve")]
    for at, height in places:
        if run.status in FAILED:
            parts.append(cross(at, height, f"{title} ({run.status})", size=3.5))
        else:
            parts.append(tag("circle", cx=at, cy=height, r=2.6, class_="dot"))
    return tag("g", *parts)
