"""What was made of a variant's seeds together (soups, ensembles), beside the mean of the same seeds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from finetune import stats
from finetune.report.blocks import Block, Cell, Column, Fold, Section, Table, Text
from finetune.report.drawing.plots import COLOURS
from finetune.report.reading import Run, is_mean
from finetune.report.units import seconds, unit

Results = dict[str, Any]

INTRO = (
    "Made of a variant's finished seeds, and no part of any mean or spread above. The gain is how much better it is "
    "than the mean of the seeds it could be made of; a negative one: how much worse. Its interval is over examples, a "
    "t interval of the paired differences: it does not cover which seeds there were."
)


def combined_of(made: Run, runs: list[Run], tasks: list[dict[str, Any]], level: float) -> Results:
    """One combination for results.json; ``runs`` are the variant's, ``tasks`` those on which runs share examples."""
    result = made.result
    members = [run for run in runs if run.seed in result["of"]]
    keys = [(task, metric) for task in tasks for metric in task["metrics"]]
    return {
        "kind": result["kind"],
        "status": result["status"],
        "reason": result.get("reason"),
        "seeds": result["seeds"],
        "of": result["of"],
        "seconds": result.get("seconds"),
        "scores": made.scores,
        "gain": {
            f"{task['name']}/{metric['name']}": found
            for task, metric in keys
            if len(members) == len(result["of"]) and (found := _gain(made, members, task["name"], metric, level))
        },
    }


def _gain(made: Run, members: list[Run], task: str, metric: dict[str, Any], level: float) -> Results | None:
    """How much better than the mean of ``members``; with an interval where the metric is a mean over examples."""
    key, sign = f"{task}/{metric['name']}", 1 if metric["higher_is_better"] else -1
    score, others = made.scores.get(key), [run.scores.get(key) for run in members]
    known = [other for other in others if other is not None]
    if score is None or not known or len(known) < len(others):
        return None
    mean = float(np.mean(known))
    found = stats.Gain(sign * (score - mean), None, level, "the metric is no mean over examples")
    for column in ("score", "loss"):
        rows = [run.example_scores(task, column) for run in (made, *members)]
        stored = [sign * row for row in rows if row is not None]
        alike = len(stored) == len(rows) and len({row.shape for row in stored}) == 1
        if alike and is_mean(np.stack(stored), [sign * value for value in (score, *known)]):
            found = stats.gain(stored[0], np.stack(stored[1:]), level)
            break
    return {**asdict(found), "mean_seed": mean}


def sections(results: Results) -> list[Section]:
    """The section on combinations; none where nothing was combined."""
    if not any(variant["combined"] for variant in results["variants"]):
        return []
    blocks: list[Block] = [Text(INTRO, "muted")]
    headlines = [(task["name"], task["metric"]) for task in results["tasks"]]
    others = [
        (task["name"], metric["name"])
        for task in results["tasks"]
        for metric in task["metrics"]
        if metric["name"] != task["metric"]
    ]
    blocks.append(_table(results, headlines))
    if others:
        blocks.append(Fold("Soups and ensembles on the other metrics", [_table(results, others)]))
    return [Section("combined", "Soups and ensembles", blocks)]


def _table(results: Results, metrics: list[tuple[str, str]]) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("combination", numeric=False),
        Column("metric", numeric=False),
        Column("score"),
        Column("mean seed", "Mean of the finished seeds that it could be made of"),
        Column("gain", "Positive where the combination is better"),
        Column("95 % interval", "Student t interval over examples"),
        Column("made of", "Seeds", numeric=False),
        Column("time"),
    ]
    rows = [
        _row(variant, index, made, *metric)
        for index, variant in enumerate(results["variants"])
        for made in variant["combined"]
        for metric in metrics
    ]
    reasons = {
        f"{variant['name']}, {made['kind']}: {made['reason']}."
        for variant in results["variants"]
        for made in variant["combined"]
        if made["reason"]
    }
    return Table(columns, rows, sorted(reasons))


def _row(variant: Results, index: int, made: Results, task: str, metric: str) -> list[Cell]:
    key, shown = f"{task}/{metric}", unit(metric)
    gain = made["gain"].get(key) or {"mean": None, "ci": None, "mean_seed": None}
    failed = made["status"] != "finished"
    low, high = gain["ci"] or (0.0, 0.0)
    return [
        Cell(variant["name"], colour=index % COLOURS),
        Cell(made["kind"], tone="bad" if failed else ""),
        Cell(f"{shown.label} on {task}"),
        Cell(shown.value(made["scores"].get(key))),
        Cell(shown.value(gain["mean_seed"])),
        Cell(shown.gap(gain["mean"]), tone="good" if low > 0 else "bad" if high < 0 else ""),
        Cell(shown.interval(gain["ci"], signed=True)),
        Cell(made["status"] if failed else _seeds(made), tone="bad" if failed else "muted"),
        Cell(seconds(made["seconds"])),
    ]


def _seeds(made: Results) -> str:
    """Which seeds it is made of; how many, where all are in it."""
    if made["seeds"] == made["of"]:
        return f"all {len(made['of'])} that finished" if len(made["of"]) > 1 else "the one that finished"
    return f"seed{'s' if len(made['seeds']) > 1 else ''} {', '.join(map(str, made['seeds']))}, of {len(made['of'])}"
