"""One number for all evaluation sets of a study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from finetune.core.numbers import MINUS, NONE, count, fixed, listing
from finetune.core.run_dir import BASE
from finetune.metrics import unit
from finetune.metrics.unit import Unit
from finetune.report.blocks import Block, Cell, Column, Figure, Section, Table, Text
from finetune.report.drawing.panels import band
from finetune.report.drawing.plots import COLOURS, fit
from finetune.report.drawing.svg import Scale, drawing, polyline, tag
from finetune.results.reading import Study
from finetune.results.schema import AcrossResult, ProfileResult, Results
from finetune.stats.across import ORDER_TAU, Order, Value

SCORE = Unit("score", scale=100, decimals=1, suffix="%", difference="points")

INTRO = (
    "All tasks in one number: their headline metrics are shares between 0 and 1, of which more is better, and are "
    "taken together as they are: {tasks}. The interquartile mean is that of the middle half of all runs and "
    "tasks, so that a few very good or very bad runs do not move it (Agarwal et al., NeurIPS 2021). Intervals are "
    "over runs, each with its scores on all tasks: they say nothing of other tasks."
)
PROFILE = (
    "Share of all runs and tasks that score higher than the number below: the further right a line, the better. "
    "Bands: 95 % intervals, point by point; they have no width where all runs have the same share, which is not "
    "certainty."
)
ORDER = (
    "“Almost dominates” asks more than whose mean is higher: whether a variant is ahead from its worst runs to "
    "its best. Where it is behind makes up a part of the (squared) distance between the two; epsilon_min is the "
    "most that this part may be, at 95 % over all pairs, both ways, and tasks (Dror et al., ACL 2019). Below "
    f"{ORDER_TAU} it counts. This is made for many runs: of equal variants with five, 6 % look ordered. So no "
    "verdict is read from it."
)


def sections(study: Study, results: Results) -> list[Section]:
    """Write the section on all evaluation sets together; none with a single one."""
    found = results.across
    if found is None:
        return []
    title = "All tasks together"
    left_out = [f"{row.task} is left out: {row.reason}." for row in found.left_out]
    if found.reason:
        said = " ".join([f"Not computed: {found.reason}.", *left_out])
        return [Section("across", title, [Text(said, "muted")])]
    tasks = listing([f"{unit(task.metric).label} on {task.task}" for task in found.tasks])
    blocks: list[Block] = [Text(INTRO.format(tasks=tasks), "muted"), _variant_table(found, left_out)]
    if len(found.taus) > 1 and found.taus[-1] > found.taus[0]:
        blocks.append(Figure(_drawing(found, narrow=False), _drawing(found, narrow=True), PROFILE))
    if found.pairs:
        blocks += [Text(ORDER, "muted"), _pair_table(found)]
    return [Section("across", title, blocks)]


def _variant_table(found: AcrossResult, left_out: list[str]) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("interquartile mean, %", "Of the middle half of all runs and tasks, and its 95 % interval"),
        Column("mean, %", "Over all runs and tasks"),
        Column("median, %", "Of the tasks' means over runs"),
        Column("optimality gap, points", f"How far below {SCORE.value(found.gamma)} on average"),
        Column("runs", "That have a score on every task"),
    ]
    rows, notes = [], dict[str, list[str]]()
    for index, variant in enumerate(found.variants):
        cells = []
        for key in ("iqm", "mean", "median", "optimality_gap"):
            value: Value | None = getattr(variant, key)
            number, ci = (None, None) if value is None else (value.value, value.ci)
            cells.append(Cell(SCORE.number(number), SCORE.interval(ci) if ci else ""))
        if variant.name == BASE:
            name = Cell(BASE, "untuned")
        else:
            name = Cell(variant.name, colour=index % COLOURS)
            reason = variant.reason or (variant.iqm and variant.iqm.reason)
            if reason:
                notes.setdefault(reason, []).append(variant.name)
            if variant.runs_left_out:
                without = "runs without a score on every task are not in it, which may flatter it"
                notes.setdefault(without, []).append(variant.name)
        rows.append([name, *cells, Cell(count(variant.runs))])
    return Table(columns, rows, [*(f"{', '.join(names)}: {why}." for why, names in notes.items()), *left_out])


def _pair_table(found: AcrossResult) -> Table:
    columns = [
        Column("left against right", numeric=False),
        Column("P(left wins)", "Chance that a random run of the left beats one of the right, mean over tasks"),
        Column("95 % interval", "Over runs, as if all tasks were one; too wide where runs differ by task"),
        Column("left almost dominates", "On how many tasks, and epsilon_min on each", numeric=False),
        Column("right almost dominates", "On how many tasks, and epsilon_min on each", numeric=False),
    ]
    rows, notes = [], dict[str, list[str]]()
    for pair in found.pairs:
        name = f"{pair.left} {MINUS} {pair.right}"
        chance = pair.probability_of_improvement
        ci = chance.ci
        interval = f"[{ci[0]:.2f}, {ci[1]:.2f}]" if ci else NONE
        orders = (pair.order.left, pair.order.right)
        cells = [_order_cell(list(order.values()), found.order_tau) for order in orders]
        about = (pair.left, pair.right)
        rows.append([Cell(name, about=about), Cell(f"{chance.value:.2f}"), Cell(interval), *cells])
        missing = [order.reason for way in orders for order in way.values()]
        for reason in dict.fromkeys(filter(None, [chance.reason, *missing])):
            notes.setdefault(reason, []).append(name)
    return Table(columns, rows, [f"{', '.join(names)}: {reason}." for reason, names in notes.items()])


def _order_cell(orders: Sequence[Order], tau: float) -> Cell:
    known = [order.epsilon_min for order in orders if order.epsilon_min is not None]
    if not known:
        return Cell(NONE)
    tasks = sum(epsilon < tau for epsilon in known)
    return Cell(f"{tasks} of {len(known)} tasks", ", ".join(f"{epsilon:.2f}" for epsilon in known))


def _drawing(found: AcrossResult, narrow: bool) -> Markup:
    """Draw performance profiles: falling steps, one line per variant, with its band."""
    variants = [(index, each, each.profile) for index, each in enumerate(found.variants) if each.profile is not None]
    width, line, abreast = (360, 18, 1) if narrow else (1100, 20, 4)
    top = 12 + line * -(-len(variants) // abreast)
    height = top + (220 if narrow else 300)
    taus = np.array(found.taus) * SCORE.scale
    x, y = Scale(taus[0], taus[-1], 40, width - 14), Scale(0, 100, height - 40, top)
    parts = []
    for value in y.ticks(4):
        parts.append(tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", fixed(value, 0), x=x.start - 6, y=y(value) + 4, text_anchor="end", class_="tick"))
    for value in x.ticks(4 if narrow else 8):
        text = fixed(value, x.decimals(4 if narrow else 8))
        parts.append(tag("text", text, x=x(value), y=height - 22, text_anchor="middle", class_="tick"))
    middle = (x.start + x.end) / 2
    parts.append(tag("text", "score, %", x=middle, y=height - 5, text_anchor="middle", class_="axis"))
    places = [x(tau) for tau in taus]
    for place, (index, variant, profile) in enumerate(variants):
        key = (x.start + 260 * (place % abreast), line * (place // abreast + 0.5))
        parts.append(_profile(variant.name, index, profile, places, y, key))
    parts.append(tag("text", "runs and tasks above, %", x=x.end, y=top - 4, text_anchor="end", class_="axis"))
    label = "Performance profiles: share of all runs and tasks above each score, by variant"
    return drawing(width, height, label, parts, "narrow" if narrow else "wide")


def _profile(
    name: str, index: int, profile: ProfileResult, places: list[float], y: Scale, key: tuple[float, float]
) -> Markup:
    """One variant's band and line, with its name at ``key``; the base model has neither colour nor band."""
    base, parts = name == BASE, [tag("title", name)]
    if profile.low and profile.high:
        parts.append(band(places, *([y(100 * share) for share in bound] for bound in (profile.low, profile.high))))
    points = [(place, y(100 * share)) for place, share in zip(places, profile.share, strict=True)]
    parts.append(polyline(points, "profile baseline" if base else "profile"))
    parts.append(tag("circle", cx=key[0] + 5, cy=key[1], r=4.5, class_="dot"))
    parts.append(tag("text", fit(name, 24), x=key[0] + 16, y=key[1] + 4.5, class_="name"))
    return tag("g", *parts, class_="base" if base else f"c{index % COLOURS}")
