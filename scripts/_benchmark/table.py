"""From raw measurements to what is said: ratios round by round, scores with intervals, targets reached or missed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from scripts._benchmark.jobs import JOBS, LOWER_IS_BETTER, Case
from scripts._benchmark.record import Record

Rows = Mapping[int, Mapping[str, Any]]
"""A contestant's measurements, by round."""

UNITS = {
    "tokens_per_second": "tokens/s",
    "seconds": "s",
    "seconds_after_start": "s without start-up",
    "examples_per_second": "examples/s",
}


def summarise(case: Case, record: Record) -> list[dict[str, Any]]:
    """A row for each contestant that was measured: figure, ratios to ours, memory, score, and what the target says."""
    ours = record.of(case.name, case.ours.name)
    rows = []
    for contestant in case.contestants:
        found = record.of(case.name, contestant.name)
        if not found:
            continue
        is_ours = contestant == case.ours
        row = {
            "case": case.name,
            "contestant": contestant.name,
            "figure": case.figure,
            "values": spread([row["figures"][case.figure] for row in found.values()]),
            "ratio": None if is_ours else spread(ratios(ours, found, case.figure)),
            "ratio_after_start": None
            if is_ours or case.job not in "cf"
            else spread(ratios(ours, found, "seconds_after_start")),
            "memory": spread([memory(row) for row in found.values()]),
            "score": _score([row["score"] for row in found.values() if row["score"]]),
            "agreement": None if is_ours else agreement(ours, found),
            "target": case.limit if is_ours else contestant.target,
        }
        rows.append(row)
    mine = next((row for row in rows if row["contestant"] == case.ours.name), None)
    return [{**row, **judge(row, mine, case.watch_memory)} for row in rows]


def ratios(ours: Rows, theirs: Rows, figure: str) -> list[float]:
    """How many times as fast ours is, in each round that both have."""
    shared = sorted(ours.keys() & theirs.keys())
    pairs = [(ours[number]["figures"][figure], theirs[number]["figures"][figure]) for number in shared]
    return [their / our if figure in LOWER_IS_BETTER else our / their for our, their in pairs]


def spread(values: list[float]) -> dict[str, float] | None:
    """Median, minimum and maximum; None of nothing."""
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def memory(row: Mapping[str, Any]) -> float:
    """Bytes: the GPU's, where one was used, else those of the process."""
    return row["device_memory_bytes"] or row["peak_memory_bytes"]


def agreement(ours: Rows, theirs: Rows) -> float | None:
    """The share of examples with the same label, the smallest over the rounds; None where labels are not kept."""
    pairs = [
        (ours[number]["facts"].get("labels"), theirs[number]["facts"].get("labels")) for number in ours.keys() & theirs
    ]
    shares = [sum(a == b for a, b in zip(our, their, strict=True)) / len(our) for our, their in pairs if our and their]
    return min(shares, default=None)


def _score(scores: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The mean over rounds of the score and of its bounds."""
    if not scores:
        return None
    means = {name: statistics.mean(score[name] for score in scores) for name in ("value", "low", "high")}
    return {"name": scores[0]["name"], **means}


def judge(row: Mapping[str, Any], ours: Mapping[str, Any] | None, watch_memory: bool) -> dict[str, bool | None]:
    """Whether the target is reached, the scores' intervals overlap, and ours needs less memory; None: not asked."""
    target, equal, less = row["target"], None, None
    if row is ours:
        reached = None if target is None else row["values"]["median"] <= target
        return {"reached": reached, "equal_scores": None, "less_memory": None}
    reached = None if target is None or row["ratio"] is None else row["ratio"]["median"] >= target
    if ours and ours["score"] and row["score"]:
        a, b = row["score"], ours["score"]
        equal = a["low"] <= b["high"] and b["low"] <= a["high"]
    if ours and watch_memory:
        less = ours["memory"]["median"] < row["memory"]["median"]
    return {"reached": reached, "equal_scores": equal, "less_memory": less}


def lines(case: Case, rows: list[dict[str, Any]]) -> list[str]:
    """A case in columns."""
    if not rows:
        return [heading(case), "  not measured"]
    table = [["", UNITS[case.figure], "ours is", "target", "memory", "score"], *[_cells(case, row) for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    body = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]
    return [heading(case), *body, *(f"  {note}" for row in rows for note in notes(case, row))]


def heading(case: Case) -> str:
    """What is compared, and how much of it."""
    size = f": {case.examples} examples, {case.epochs} epoch{'s' * (case.epochs > 1)}" if case.job in "abcf" else ""
    if case.job == "e":
        size = f": {case.held_out} examples"
    return f"({case.job}) {JOBS[case.job]} · {case.name}{size}"


def _cells(case: Case, row: Mapping[str, Any]) -> list[str]:
    score, target = row["score"], row["target"]
    wanted = ""
    if target is not None:
        sign = f"≤ {target:g} s" if row["ratio"] is None and row["contestant"] == case.ours.name else f"{target:g}×"
        wanted = f"{sign} {'reached' if row['reached'] else 'missed'}"
    return [
        row["contestant"],
        show(row["values"]),
        f"{show(row['ratio'])} ×" if row["ratio"] else "",
        wanted,
        f"{row['memory']['median'] / 1e6:,.0f} MB",
        f"{score['name']} {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]" if score else "",
    ]


def notes(case: Case, row: Mapping[str, Any]) -> list[str]:
    """What does not fit into the columns."""
    name, found = row["contestant"], []
    if row["ratio_after_start"]:
        found.append(f"{name}: without anybody's start-up, ours is {show(row['ratio_after_start'])} ×")
    if row["agreement"] is not None:
        found.append(f"{name}: {row['agreement']:.1%} of its labels are ours")
    if row["equal_scores"] is False:
        found.append(f"{name}: its score's interval does not overlap with ours: not the same quality")
    if row["less_memory"] is False:
        found.append(f"{name}: needs less memory than ours, which misses the target")
    return found


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """The targets that were not reached, those on memory among them; nothing of what was not measured."""
    found = [f"{row['case']} ({row['contestant']})" for row in rows if row["reached"] is False]
    return found + [f"memory of {row['case']} ({row['contestant']})" for row in rows if row["less_memory"] is False]


def show(values: Mapping[str, float] | None) -> str:
    """Median, and the range where there is one."""
    if values is None:
        return ""
    text = [number(values[name]) for name in ("median", "min", "max")]
    return text[0] if values["min"] == values["max"] else f"{text[0]} [{text[1]}, {text[2]}]"


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def utilisation(record: Record, case: Case) -> list[str]:
    """Shares of the machine's peak that our runs report of themselves."""
    found = []
    for row in record.of(case.name, case.ours.name).values():
        for training in row["facts"].get("training", []):
            shares = [(name, value) for name, value in training.items() if "utilisation" in name and value is not None]
            found += [
                f"  ours, round {row['round'] + 1}: {name.replace('_', ' ')} {value:.1%}" for name, value in shares
            ]
    return found
