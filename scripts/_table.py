"""Writes the table of a study into README.md, between markers that name the study: no number there is typed by hand.

python -m scripts._table runs/strategies/report/results.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from finetune.report.units import memory, seconds, short_count, unit

README = Path(__file__).parents[1] / "README.md"


def markers(study: str) -> tuple[str, str]:
    """What stands before and after the table."""
    return f"<!-- table of {study}: written by scripts/_table.py -->", f"<!-- end of {study} -->"


def table(results: dict[str, Any]) -> str:
    """The variants by their first held-out score, the best first: how many weights learn, time and memory of a run,
    and the mean over seeds with its interval."""
    task = results["tasks"][0]
    key, shown = f"{task['name']}/{task['metric']}", unit(task["metric"])
    scored = [variant for variant in results["variants"] if key in variant["estimates"]]
    scored.sort(key=lambda variant: variant["estimates"][key]["mean"], reverse=task["higher_is_better"])
    lines = [f"| variant | learns | a run takes | memory | {shown.heading} | seeds |", "| --- " * 6 + "|"]
    for variant in scored:
        estimate, runs = variant["estimates"][key], variant["runs"]
        spent = [run["seconds"] for run in runs if run["seconds"] is not None]
        peaks = [run["peak_memory_bytes"] for run in runs if run["peak_memory_bytes"] is not None]
        cells = [
            variant["name"],
            short_count((variant["parameters"] or {}).get("trainable")),
            seconds(fmean(spent) if spent else None),
            memory(max(peaks, default=None)),
            f"{shown.number(estimate['mean'])} {shown.interval(estimate['ci'])}",
            str(estimate["n"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    level = next((f"{variant['estimates'][key]['level']:.0%}" for variant in scored), "")
    device = results["environment"]["device"]
    return "\n".join([*lines, "", f"{level} intervals over seeds; {task['examples']:,} held-out examples; {device}."])


def write(results: dict[str, Any], readme: Path = README) -> None:
    """Put the table between its markers."""
    begin, end = markers(results["study"])
    text = readme.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise SystemExit(f"{readme} has no place for it: it lacks the lines\n{begin}\n{end}")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    readme.write_text(f"{before}{begin}\n\n{table(results)}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    write(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
