"""The drawing of every seed's score."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from finetune.core.numbers import fixed
from finetune.core.run_dir import FAILED
from finetune.metrics import unit
from finetune.metrics.unit import Unit
from finetune.report.drawing.svg import Scale, cross, drawing, short, tag
from finetune.results.schema import EvaluationSet, Results, ScoreEstimate, VariantResult

COLOURS = 8
"""Colours that the page's style defines, c0 to c7; further variants begin again."""

RADIUS = 4.5


def seed_plot(results: Results, task: EvaluationSet, narrow: bool) -> Markup:
    """One row per variant: a dot per seed, the mean as a line, its interval as a band; the base model as a dashed line.

    Failed runs are crosses; those without a score stand in a column of their own at the left.
    """
    shown, key = unit(task.metric), task.key
    variants = results.tuned
    base = next((each.estimates[key].mean for each in results.variants if each.is_base), None)
    width, row, top = (360, 54, 26) if narrow else (1100, 46, 26)
    unscored = any(key not in run.scores and run.status in FAILED for v in variants for run in v.runs)
    names = 0.0 if narrow else min(180.0, 24 + 8.0 * max((len(variant.name) for variant in variants), default=0))
    left = names + (46 if unscored else 0)
    height = top + row * len(variants) + 40
    low, high = _range([variant.estimates[key] for variant in variants], base)
    x = Scale(low * shown.scale, high * shown.scale, left + 14, width - (14 if narrow else 76))
    parts = [_grid(x, top, height - 40), _axis_title(x, height - 6, shown)]
    if unscored:
        parts.append(tag("text", "no score", x=left - 23, y=height - 24, text_anchor="middle", class_="tick"))
    for index, variant in enumerate(variants):
        y = top + row * (index + 0.5) + (9 if narrow else 0)
        parts.append(_row(variant, key, shown, x, y, (left - 23, width, narrow, index % COLOURS)))
    if base is not None:
        parts.append(_base_line(base * shown.scale, shown.value(base), x, top, height - 40))
    label = f"Every seed's {shown.label} on {task.name}, by variant"
    return drawing(width, height, label, parts, "narrow" if narrow else "wide")


def _range(estimates: Sequence[ScoreEstimate], base: float | None) -> tuple[float, float]:
    """Choose the ends of the axis: all seeds; intervals and base only so far that seeds can be told apart."""
    seen = [value for found in estimates for value in (found.min, found.max) if value is not None]
    if not seen:
        return 0.0, 1.0
    low, high = min(seen), max(seen)
    reach = (high - low) or max(abs(high) * 0.02, 1e-6)
    wishes = [bound for found in estimates for bound in (found.ci or ())] + ([base] if base is not None else [])
    wishes = [value for value in wishes if low - 0.8 * reach <= value <= high + 0.8 * reach]
    low, high = min([low, *wishes]), max([high, *wishes])
    return low - 0.05 * reach, high + 0.05 * reach


def _grid(x: Scale, top: float, bottom: float) -> Markup:
    lines = []
    for value in x.ticks():
        lines.append(tag("line", x1=x(value), x2=x(value), y1=top, y2=bottom, class_="grid"))
        text = fixed(value, x.decimals())
        lines.append(tag("text", text, x=x(value), y=bottom + 16, text_anchor="middle", class_="tick"))
    return tag("g", *lines)


def _axis_title(x: Scale, y: float, shown: Unit) -> Markup:
    return tag("text", shown.heading, x=(x.start + x.end) / 2, y=y, text_anchor="middle", class_="axis")


def _row(
    variant: VariantResult, key: str, shown: Unit, x: Scale, y: float, place: tuple[float, float, bool, int]
) -> Markup:
    gutter, width, narrow, colour = place
    name, found = variant.name, variant.estimates[key]
    parts = [tag("line", x1=x.start, x2=x.end, y1=y, y2=y, class_="guide")]
    label_y = y - 17 if narrow else y + 4.5
    parts.append(tag("text", tag("title", name), fit(name, 34 if narrow else 20), x=0, y=label_y, class_="name"))
    if found.n:
        parts.append(tag("text", shown.value(found.mean), x=width, y=label_y, text_anchor="end", class_="number"))
    if found.ci:
        title = f"{name}: mean {shown.value(found.mean)}, 95 % interval {shown.interval(found.ci)}, n = {found.n}"
        parts.append(_interval(found.ci, shown.scale, title, x, y))
    parts += _dots(variant, key, shown, x, y, room=11 if narrow else 17)
    if found.n > 1 and found.mean is not None:
        mean = x(found.mean * shown.scale)
        parts.append(tag("line", x1=mean, x2=mean, y1=y - 13, y2=y + 13, class_="mean"))
    unscored = [run for run in variant.runs if key not in run.scores and run.status in FAILED]
    for index, run in enumerate(unscored):
        spread = (index - (len(unscored) - 1) / 2) * min(9, 36 / len(unscored))
        parts.append(cross(gutter + spread, y, f"{name}, seed {run.seed}: {run.status}, no score"))
    return tag("g", *parts, class_=f"c{colour}")


def _interval(ends: tuple[float, float], scale: float, title: str, x: Scale, y: float) -> Markup:
    """The interval as a band, with a chevron where it goes on outside the drawing."""
    low, high = (bound * scale for bound in ends)
    parts = [tag("rect", x=x(low), y=y - 8, width=max(x(high) - x(low), 1), height=16, rx=3, class_="band")]
    for edge, way, cut in ((x.start, -1, low < x.low), (x.end, 1, high > x.high)):
        if cut:
            d = f"M{short(edge + 3 * way)} {short(y - 4)}l{4 * way} 4l{-4 * way} 4"
            parts.append(tag("path", d=d, class_="more"))
    return tag("g", tag("title", title), *parts)


def _dots(variant: VariantResult, key: str, shown: Unit, x: Scale, y: float, room: float) -> list[Markup]:
    """Draw dots, moved up and down by at most ``room`` pixels where they would hide each other."""
    runs = sorted((run for run in variant.runs if key in run.scores), key=lambda run: run.scores[key])
    places = [x(run.scores[key] * shown.scale) for run in runs]
    levels = _levels(places)
    gap = min(7.5, room / max(1, (max(levels, default=0) + 1) // 2))
    marks: list[Markup] = []
    for run, at, level in zip(runs, places, levels, strict=True):
        # Levels 0, 1, 2, 3 ... lie on the line, above, below, further above ...
        height = y + (level + 1) // 2 * gap * (-1 if level % 2 else 1)
        title = f"{variant.name}, seed {run.seed}: {shown.value(run.scores[key])}"
        if run.status in FAILED:
            marks.append(cross(at, height, f"{title} ({run.status})"))
        else:
            marks.append(tag("circle", tag("title", title), cx=at, cy=height, r=RADIUS, class_="dot"))
    return marks


def _levels(places: list[float]) -> list[int]:
    """Find for each dot, in order of place, the first level on which no earlier dot is nearer than 8 pixels."""
    levels: list[int] = []
    last: dict[int, float] = {}
    for place in places:
        level = 0
        while level in last and place - last[level] <= 8:
            level += 1
        last[level] = place
        levels.append(level)
    return levels


def _base_line(value: float, text: str, x: Scale, top: float, bottom: float) -> Markup:
    """The base model's score; an arrow at the edge when it lies outside the drawing."""
    label = f"untuned base {text}"
    if value < x.low:
        return tag("text", f"← {label}", x=x.start, y=top - 8, class_="base")
    if value > x.high:
        return tag("text", f"{label} →", x=x.end, y=top - 8, text_anchor="end", class_="base")
    anchor = "middle" if 0.25 < (x(value) - x.start) / (x.end - x.start) < 0.75 else None
    anchor = anchor or ("start" if x(value) < (x.start + x.end) / 2 else "end")
    line = tag("line", x1=x(value), x2=x(value), y1=top - 3, y2=bottom, class_="baseline")
    return tag("g", line, tag("text", label, x=x(value), y=top - 8, text_anchor=anchor, class_="base"))


def fit(text: str, most: int) -> str:
    """The text, cut where it has more than so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
