"""The counts, where the documentation has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts._fuzz.worker import ACCEPTED, FAILURES, REFUSED

PATH = Path(__file__).parents[2] / "recipes" / "SECURITY.md"
BEGIN, END = "<!-- scripts/fuzz -->", "<!-- end of scripts/fuzz -->"


def write(found: Mapping[Any, tuple[str, Any]], seed: int) -> None:
    """Write the table of ``found`` between its markers."""
    before, _, rest = PATH.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PATH.write_text(f"{before}{BEGIN}\n{table(found, seed)}\n{END}{after}", encoding="utf-8")


def table(found: Mapping[Any, tuple[str, Any]], seed: int) -> str:
    """Count by kind and group."""
    groups: dict[tuple[str, str], Counter[str]] = {}
    for (kind, _), (group, outcome) in found.items():
        for name in (group or "?", "all"):
            groups.setdefault((kind, name), Counter())[outcome.result] += 1
    head = ["", "cases", "accepted", "refused, saying what and where", *FAILURES.values()]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for (kind, name), counts in sorted(groups.items(), key=lambda each: (each[0][0] != "recipes", each[0])):
        cells = [counts.total(), *(counts[each] for each in (ACCEPTED, REFUSED, *FAILURES))]
        lines.append(f"| {kind}: {name} | {' | '.join(f'{each:,}' for each in cells)} |")
    return f"Seed {seed}:\n\n" + "\n".join(lines)
