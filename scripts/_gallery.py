"""Writes the table of recipes/GALLERY.md, out of the tables of recipes/RESULTS.md: python -m scripts._gallery

A job is a heading of that page, followed by the recipe that does it, and where need be by the variants that are held
against each other: [`setfit.yaml`](setfit.yaml), `setfit-8` beside `probe-8`. Without them these are the best variant,
and the best of the cheap baselines and the untuned model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from scripts._pages import RESULTS, ROOT, put
from scripts._table import markers

GALLERY = ROOT / "recipes" / "GALLERY.md"
BEGIN, END = "<!-- the gallery's table: written by scripts/_gallery.py -->", "<!-- end of the gallery's table -->"
JOB = re.compile(
    r"^## (?P<title>.+)\n\n\[`(?P<recipe>[\w-]+)\.yaml`\]\(\S+\.yaml\)(?:, `(?P<best>\S+)` beside `(?P<rival>\S+)`)?",
    re.MULTILINE,
)

Row = Mapping[str, str]
"""A line of a table, by its column."""


class Result(NamedTuple):
    """What stands in RESULTS.md of a recipe."""

    metric: str
    rows: list[Row]
    computed: str
    """How many held-out examples it was scored on, and on which processor, in which arithmetic."""


class Job(NamedTuple):
    """What people do, the recipe that does it, and the variants that the page compares, if it names them."""

    title: str
    recipe: str
    best: str | None
    rival: str | None


def jobs(page: str) -> list[Job]:
    """The jobs of the page, in its order."""
    return [Job(**found.groupdict()) for found in JOB.finditer(page)]


def compared(job: Job) -> tuple[Row, Row | None, Result]:
    """The line of a job's variant, of what is held against it, and where they stand."""
    found = result(job.recipe)
    named = {row["variant"]: row for row in found.rows}
    return (
        named[job.best] if job.best else found.rows[0],
        named[job.rival] if job.rival else rival(found),
        found,
    )


def result(study: str) -> Result:
    """The last table of a study. Raises :class:`SystemExit` where there is none."""
    begin, end = markers(study)
    _, found, rest = RESULTS.read_text(encoding="utf-8").partition(begin)
    if not found:
        raise SystemExit(f"{RESULTS} has no table of {study}")
    lines = rest.partition(end)[0].strip().splitlines()
    heads, _, *body = [_cells(line) for line in lines if line.startswith("|")]
    rows = [dict(zip(heads, cells, strict=True)) for cells in body]
    return Result(heads[4], rows, "; ".join(lines[-1].split("; ")[-2:]).rstrip("."))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rival(found: Result) -> Row | None:
    """The best of the cheap baselines and the untuned model, by a metric of which more is better."""
    cheap = [row for row in found.rows if row["variant"].startswith("*") or row["variant"] == "base"]
    return max((row for row in cheap if _mean(found, row) is not None), key=lambda row: _mean(found, row), default=None)


def _mean(found: Result, row: Row) -> float | None:
    number = row[found.metric].split()[0].replace("−", "-")
    return None if number == "–" else float(number)


def table(page: str) -> str:
    """A line for each job: a variant beside the cheapest rival, and what a run of it costs."""
    lines = [
        "| job | recipe | metric | variant | its score | the cheapest beside it | a run takes | memory | on |",
        "| --- " * 9 + "|",
    ]
    for job in jobs(page):
        best, cheap, found = compared(job)
        cells = [
            f"[{job.title}](#{re.sub('[^a-z0-9 -]', '', job.title.lower()).replace(' ', '-')})",
            f"[`{job.recipe}`](RESULTS.md)",
            found.metric,
            best["variant"],
            best[found.metric] if _mean(found, best) is not None else f"{best['failed']} runs failed",
            "–" if cheap is None else f"{cheap['variant']}: {cheap[found.metric]}",
            best["a run takes"],
            best["memory"],
            found.computed,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    put(table(GALLERY.read_text(encoding="utf-8")), GALLERY, BEGIN, END)
