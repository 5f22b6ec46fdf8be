"""Writes the table of a benchmark into recipes/RESULTS.md: python -m scripts._benchmark.page benchmark.json

Each job stands beside every peer at its best settings on that machine, as the benchmark found them by measuring.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts._benchmark.jobs import JOBS, SIZES, Case, cases
from scripts._benchmark.record import Record
from scripts._benchmark.table import UNITS, number, show, summarise
from scripts._pages import RESULTS, put

BEGIN, END = "<!-- benchmark: written by scripts/_benchmark/page.py -->", "<!-- end of benchmark -->"
HEAD = ["job", "measured", "ours", "beside", "theirs", "ours is", "without start-up", "memory", "score"]
NAMED = ("transformers", "trl", "setfit")
"""Packages whose versions are named: the peers'."""


def text(record: Record) -> str:
    """The table, and what it was measured on."""
    machine, size = record.content["machine"], record.content["size"]
    if size == "quick":
        raise SystemExit(f"{record.path} is of --size quick, whose ratios are no result")
    body = [row for case in cases(SIZES[size], machine["gpu"]) for row in rows(case, record)]
    lines = [f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *body)]
    rounds = 1 + max(row["round"] for row in record.content["measurements"])
    versions = ", ".join(f"{name} {machine['packages'][name]}" for name in NAMED if machine["packages"].get(name))
    arithmetic = "" if machine["gpu"] else f", {machine['arithmetic']}"
    about = f"{machine['device']}{arithmetic}, {machine['threads']} threads; {versions}; rounds in turn: {rounds}."
    return "\n".join([*lines, "", about])


def rows(case: Case, record: Record) -> list[list[str]]:
    """The lines of a case: one for each peer at its best, or, where there is no peer, one of ours alone."""
    found = summarise(case, record)
    mine = next((row for row in found if row["contestant"] == case.ours.name), None)
    if mine is None:
        return []
    peers = {peer.name for peer in case.peers if peer.choices}
    beside = [row for row in found if row["contestant"] in peers]
    job = f"{JOBS[case.job]}: {case.name}" if case.job in "cdf" else JOBS[case.job]
    begin = [job, UNITS[case.figure], show(mine["values"])]
    if not beside:
        return [[*begin, "–", "–", "–", "–", megabytes(mine), score(mine)]]
    return [
        [
            *begin,
            row["contestant"],
            show(row["values"]),
            times(row["ratio"]),
            times(row["ratio_after_start"]),
            f"{megabytes(mine)}, theirs {megabytes(row)}",
            f"{score(mine)}, theirs {score(row, named=False)}",
        ]
        for row in beside
    ]


def times(ratio: Mapping[str, float] | None) -> str:
    """How many times as fast."""
    return f"{show(ratio)} ×" if ratio else "–"


def megabytes(row: Mapping[str, Any]) -> str:
    """The most memory, by its median."""
    return f"{row['memory']['median'] / 1e6:,.0f} MB"


def score(row: Mapping[str, Any], named: bool = True) -> str:
    """The score's mean over the rounds, with its interval."""
    if not row["score"]:
        return "–"
    value, low, high = (number(row["score"][name]) for name in ("value", "low", "high"))
    return f"{row['score']['name'] + ' ' if named else ''}{value} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="benchmark.json")
    path = parser.parse_args().file
    made = text(Record(path, json.loads(path.read_text(encoding="utf-8"))))
    put(made, RESULTS, BEGIN, END)
    print(made)


if __name__ == "__main__":
    main()
