"""What a study has left on disk, and what it has said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def results(study: Path) -> dict[str, Any]:
    """The content of a study's `results.json`."""
    return json.loads((study / "report" / "results.json").read_text(encoding="utf-8"))


def comparable(study: Path) -> dict[str, Any]:
    """What a study's `results.json` says, but for times and places."""
    found = results(study)
    del found["environment"]
    for variant in found["variants"]:
        for run in variant["runs"]:
            run["seconds"] = run["peak_memory_bytes"] = None
    return found


def scores(study: Path) -> dict[str, dict[str, float]]:
    """The scores of every run, by its path in the study."""
    return {
        str(path.parent.relative_to(study)): json.loads(path.read_text(encoding="utf-8"))["scores"]
        for path in sorted(study.rglob("result.json"))
    }


def predictions(study: Path) -> dict[str, Any]:
    """The content of every prediction table, by its path in the study."""
    return {
        str(path.relative_to(study)): pq.ParquetFile(path).read()
        for path in sorted(study.rglob("predictions/*.parquet"))
    }


def files(study: Path) -> set[str]:
    """Every file of a study, by its path in it."""
    return {str(path.relative_to(study)) for path in study.rglob("*") if path.is_file()}


def spoken(text: str) -> list[str]:
    """The lines of a stream but those about phases that take longer than a moment, as they do on a slow machine."""
    return [line for line in text.splitlines() if not re.search(r"so far$|left$|: \d+/\d+", line)]
