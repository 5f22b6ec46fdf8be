"""One number for all tasks of a study, for results.json and on the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from finetune.core.run_dir import BASE
from finetune.report.blocks import Block, Cell, Column, Figure, Section, Table, Text
from finetune.report.drawing.panels import band
from finetune.report.drawing.plots import COLOURS, fit
from finetune.report.drawing.svg import Scale, drawing, polyline, tag
from finetune.report.reading import Run, Study
from finetune.report.units import MINUS, NONE, Unit, count, fixed, listing, unit
from finetune.stats.across import (
    METHOD,
    ORDER_TAU,
    aggregate,
    almost_stochastic_order,
    improvement_across,
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    performance_profile,
)

Results = dict[str, Any]
Matrix = NDArray[np.float64]

GAMMA = 1.0
"""Score that counts as reaching the goal: the most that a share can be."""

STEPS = 100
"""Steps of a profile's thresholds, from the lowest to the highest score."""

SCORE = Unit("score", scale=100, decimals=1, suffix="%", difference="points")

STATISTICS: dict[str, Callable[[Matrix], Matrix]] = {
    "iqm": interquartile_mean,
    "median": median_score,
    "mean": mean_score,
    "optimality_gap": partial(optimality_gap, gamma=GAMMA),
}

OFF_SCALE = "no share between 0 and 1 of which more is better"
TOO_FEW_TASKS = "fewer than two tasks have a headline metric that is a share between 0 and 1, of which more is better"
NO_RUN = "no run has a score on every task"

INTRO = (
    "The headline metrics of these tasks are shares between 0 and 1, of which more is better, and are taken together "
    "as they are: {tasks}. The interquartile mean is that of the middle half of all runs and tasks (Agarwal et al., "
    "NeurIPS 2021). Intervals are over runs, each with its scores on all tasks, and say nothing of other tasks."
)
PROFILE = (
    "Share of all runs and tasks with a higher score than the one below; further right is better. Bands: 95 % "
    "intervals, point by point; they have no width where all runs have the same share, which is not certainty."
)
ORDER = (
    f"Almost dominates: on so many tasks epsilon_min is below {ORDER_TAU}. It bounds the part of the squared distance "
    "of the two variants' quantiles on which the other is ahead, at 95 % over all pairs, both ways, and tasks (Dror "
    "et al., ACL 2019). It is made for many runs: of equal variants with five, 6 % look ordered. So no verdict is "
    "read from it."
)


def across_of(study: Study, tasks: list[Results], rng: np.random.Generator, level: float = 0.95) -> Results | None:
    """What every variant amounts to over all ``tasks``, those of results.json; None with a single task.

    Headline metrics are put together only where they have one scale already: shares between 0 and 1, more is better.
    Others are in ``left_out``, with the reason. Runs that lack a score on one of the tasks are left out of it.
    """
    if len(tasks) < 2:
        return None
    used = [task for task in tasks if task["higher_is_better"] and unit(task["metric"]).suffix == "%"]
    left_out = [
        {"task": task["name"], "metric": task["metric"], "reason": f"{unit(task['metric']).label} is {OFF_SCALE}"}
        for task in tasks
        if task not in used
    ]
    content: Results = {
        "tasks": [{"task": task["name"], "metric": task["metric"]} for task in used],
        "left_out": left_out,
        "gamma": GAMMA,
        "order_tau": ORDER_TAU,
        "level": level,
        "method": METHOD,
        "reason": None if len(used) > 1 else TOO_FEW_TASKS,
        "taus": [],
        "variants": [],
        "pairs": [],
    }
    if len(used) < 2:
        return content
    keys = [f"{task['name']}/{task['metric']}" for task in used]
    every = study.everything
    scores = {name: _by_seed(runs, keys) for name, runs in every.items()}
    seen = np.array([row for rows in scores.values() for row in rows.values()])
    taus = _thresholds(seen) if seen.size else np.empty(0)
    tuned = [name for name in study.variants if scores[name]]
    alpha = (1 - level) / max(1, len(tuned) * (len(tuned) - 1) * len(used))
    return {
        **content,
        "taus": taus.tolist(),
        "variants": [_variant(name, scores[name], len(runs), taus, level) for name, runs in every.items()],
        "pairs": [
            _pair(scores, pair, [task["name"] for task in used], rng, (level, alpha)) for pair in combinations(tuned, 2)
        ],
    }


def _thresholds(seen: Matrix) -> Matrix:
    """From just below the lowest score, which every run exceeds, to the highest, which none does."""
    low, high = float(seen.min()), float(seen.max())
    return np.linspace(low - (high - low) / STEPS, high, STEPS + 2)


def _by_seed(runs: list[Run], keys: list[str]) -> dict[int | None, list[float]]:
    """Scores of a variant's runs on every task, by seed; failed runs with scores are among them."""
    return {run.seed: [run.scores[key] for key in keys] for run in runs if all(key in run.scores for key in keys)}


def _variant(name: str, scores: dict[int | None, list[float]], begun: int, taus: Matrix, level: float) -> Results:
    table = np.array(list(scores.values()))
    content: Results = {"name": name, "runs": len(table), "runs_left_out": begun - len(table), "reason": None}
    if not len(table):
        return content | {"reason": NO_RUN, "profile": None} | dict.fromkeys(STATISTICS)
    found = {key: asdict(aggregate(table, statistic, level)) for key, statistic in STATISTICS.items()}
    profile = performance_profile(table, taus, level)
    bounds = None if profile.low is None or profile.high is None else (profile.low.tolist(), profile.high.tolist())
    drawn = {"share": profile.share.tolist(), "low": bounds and bounds[0], "high": bounds and bounds[1]}
    return content | found | {"profile": drawn}


def _pair(
    scores: dict[str, dict[int | None, list[float]]],
    pair: tuple[str, str],
    tasks: list[str],
    rng: np.random.Generator,
    levels: tuple[float, float],
) -> Results:
    """Two variants held against each other, over all runs of both."""
    level, alpha = levels
    left, right = (np.array(list(scores[name].values())) for name in pair)

    def orders(a: Matrix, b: Matrix) -> Results:
        columns = zip(tasks, a.T, b.T, strict=True)
        return {task: asdict(almost_stochastic_order(x, y, rng, alpha)) for task, x, y in columns}

    return {
        "left": pair[0],
        "right": pair[1],
        "probability_of_improvement": asdict(improvement_across(left, right, level)),
        "order_alpha": alpha,
        "order": {"left": orders(left, right), "right": orders(right, left)},
    }


def sections(study: Study, results: Results) -> list[Section]:
    """The section on all tasks together; none with a single task."""
    found = results.get("across")
    if not found:
        return []
    title = "All tasks together"
    left_out = [f"{row['task']} is left out: {row['reason']}." for row in found["left_out"]]
    if found["reason"]:
        said = " ".join([f"Not computed: {found['reason']}.", *left_out])
        return [Section("across", title, [Text(said, "muted")])]
    tasks = listing([f"{unit(task['metric']).label} on {task['task']}" for task in found["tasks"]])
    blocks: list[Block] = [Text(INTRO.format(tasks=tasks), "muted"), _variant_table(found, left_out)]
    if len(found["taus"]) > 1 and found["taus"][-1] > found["taus"][0]:
        blocks.append(Figure(_drawing(found, narrow=False), _drawing(found, narrow=True), PROFILE))
    if found["pairs"]:
        blocks += [Text(ORDER, "muted"), _pair_table(found)]
    return [Section("across", title, blocks)]


def _variant_table(found: Results, left_out: list[str]) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("interquartile mean, %", "Of the middle half of all runs and tasks, and its 95 % interval"),
        Column("mean, %", "Over all runs and tasks"),
        Column("median, %", "Of the tasks' means over runs"),
        Column("optimality gap, points", f"How far below {SCORE.value(found['gamma'])} on average"),
        Column("runs", "That have a score on every task"),
    ]
    rows, notes = [], dict[str, list[str]]()
    for index, variant in enumerate(found["variants"]):
        cells = []
        for key in ("iqm", "mean", "median", "optimality_gap"):
            value = variant[key] or {"value": None, "ci": None, "reason": None}
            cells.append(Cell(SCORE.number(value["value"]), SCORE.interval(value["ci"]) if value["ci"] else ""))
        if variant["name"] == BASE:
            name = Cell(BASE, "untuned")
        else:
            name = Cell(variant["name"], colour=index % COLOURS)
            reason = variant["reason"] or variant["iqm"]["reason"]
            if reason:
                notes.setdefault(reason, []).append(variant["name"])
            if variant["runs_left_out"]:
                without = "runs without a score on every task are not in it, which may flatter it"
                notes.setdefault(without, []).append(variant["name"])
        rows.append([name, *cells, Cell(count(variant["runs"]))])
    return Table(columns, rows, [*(f"{', '.join(names)}: {why}." for why, names in notes.items()), *left_out])


def _pair_table(found: Results) -> Table:
    columns = [
        Column("left against right", numeric=False),
        Column("P(left wins)", "Chance that a random run of the left beats one of the right, mean over tasks"),
        Column("95 % interval", "Over runs, as if all tasks were one; too wide where runs differ by task"),
        Column("left almost dominates", "On how many tasks, and epsilon_min on each", numeric=False),
        Column("right almost dominates", "On how many tasks, and epsilon_min on each", numeric=False),
    ]
    rows, notes = [], dict[str, list[str]]()
    for pair in found["pairs"]:
        name = f"{pair['left']} {MINUS} {pair['right']}"
        chance = pair["probability_of_improvement"]
        ci = chance["ci"]
        interval = f"[{ci[0]:.2f}, {ci[1]:.2f}]" if ci else NONE
        orders = [pair["order"][way] for way in ("left", "right")]
        cells = [_order_cell(list(order.values()), found["order_tau"]) for order in orders]
        about = (pair["left"], pair["right"])
        rows.append([Cell(name, about=about), Cell(f"{chance['value']:.2f}"), Cell(interval), *cells])
        missing = [order["reason"] for way in orders for order in way.values()]
        for reason in dict.fromkeys(filter(None, [chance["reason"], *missing])):
            notes.setdefault(reason, []).append(name)
    return Table(columns, rows, [f"{', '.join(names)}: {reason}." for reason, names in notes.items()])


def _order_cell(orders: list[Results], tau: float) -> Cell:
    known = [order["epsilon_min"] for order in orders if order["epsilon_min"] is not None]
    if not known:
        return Cell(NONE)
    tasks = sum(epsilon < tau for epsilon in known)
    return Cell(f"{tasks} of {len(known)} tasks", ", ".join(f"{epsilon:.2f}" for epsilon in known))


def _drawing(found: Results, narrow: bool) -> Markup:
    """Performance profiles: falling steps, one line per variant, with its band."""
    variants = [(index, variant) for index, variant in enumerate(found["variants"]) if variant["profile"]]
    width, line, abreast = (360, 18, 1) if narrow else (1100, 20, 4)
    top = 12 + line * -(-len(variants) // abreast)
    height = top + (220 if narrow else 300)
    taus = np.array(found["taus"]) * SCORE.scale
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
    for place, (index, variant) in enumerate(variants):
        key = (x.start + 260 * (place % abreast), line * (place // abreast + 0.5))
        parts.append(_profile(variant, index, places, y, key))
    parts.append(tag("text", "runs and tasks above, %", x=x.end, y=top - 4, text_anchor="end", class_="axis"))
    label = "Performance profiles: share of all runs and tasks above each score, by variant"
    return drawing(width, height, label, parts, "narrow" if narrow else "wide")


def _profile(variant: Results, index: int, places: list[float], y: Scale, key: tuple[float, float]) -> Markup:
    """One variant's band and line, with its name at ``key``; the base model has neither colour nor band."""
    profile, base = variant["profile"], variant["name"] == BASE
    parts = [tag("title", variant["name"])]
    if profile["low"]:
        parts.append(band(places, *([y(100 * share) for share in profile[side]] for side in ("low", "high"))))
    points = [(place, y(100 * share)) for place, share in zip(places, profile["share"], strict=True)]
    parts.append(polyline(points, "profile baseline" if base else "profile"))
    parts.append(tag("circle", cx=key[0] + 5, cy=key[1], r=4.5, class_="dot"))
    parts.append(tag("text", fit(variant["name"], 24), x=key[0] + 16, y=key[1] + 4.5, class_="name"))
    return tag("g", *parts, class_="base" if base else f"c{index % COLOURS}")
