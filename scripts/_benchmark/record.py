"""benchmark.json: what was measured on what, every raw measurement, added as soon as it is there."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FORMAT = 1
"""Version of benchmark.json."""

SETTINGS = ("format", "size", "sizes", "machine", "code")
"""Two measurements belong into one benchmark only when all of these are the same."""


class OtherBenchmark(Exception):
    """The file holds measurements under other settings; the message is for a person."""


@dataclass
class Record:
    """The file, and its content."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def open(cls, path: Path, settings: dict[str, Any], fresh: bool = False) -> Record:
        """Go on with the file where it has the same settings; raises :class:`OtherBenchmark` where it has others."""
        settings = json.loads(json.dumps({"format": FORMAT, **settings}))  # as they read once written
        if path.exists() and not fresh:
            content = json.loads(path.read_text(encoding="utf-8"))
            others = [name for name in SETTINGS if content.get(name) != settings.get(name)]
            if others:
                raise OtherBenchmark(
                    f"{path} was measured with other settings ({', '.join(others)}). "
                    "Write --fresh to replace it, or --output OTHER to keep it"
                )
            return cls(path, content)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(path, {**settings, "date": now, "cases": [], "measurements": [], "summary": []})

    def find(self, case: str, contestant: str, number: int) -> dict[str, Any] | None:
        """A measurement that succeeded; those that failed are made again."""
        for row in self.content["measurements"]:
            if _key(row) == (case, contestant, number) and row["failed"] is None:
                return row
        return None

    def of(self, case: str, contestant: str) -> dict[int, dict[str, Any]]:
        """A contestant's measurements that succeeded, by round."""
        return {
            row["round"]: row
            for row in self.content["measurements"]
            if (row["case"], row["contestant"]) == (case, contestant) and row["failed"] is None
        }

    def add(self, row: dict[str, Any]) -> None:
        """Add a measurement, in place of an earlier one that failed, and write the file."""
        rows = [other for other in self.content["measurements"] if _key(other) != _key(row)]
        self.content["measurements"] = [*rows, row]
        self.write()

    def choice(self, case: str, contestant: str) -> dict[str, Any] | None:
        """Which settings were chosen for a contestant, and the trials that decided it."""
        rows = self.content.get("choices", [])
        return next((row for row in rows if (row["case"], row["contestant"]) == (case, contestant)), None)

    def add_choice(self, row: dict[str, Any]) -> None:
        """Add the choice of a contestant's settings, and write the file."""
        self.content["choices"] = [*self.content.get("choices", []), row]
        self.write()

    def write(self) -> None:
        """Write the file; a crash leaves the old one or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text(json.dumps(self.content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["case"], row["contestant"], row["round"]


def code_digest(root: Path) -> str:
    """Of our code and of the benchmark's own: measurements of different code are not mixed."""
    digest = hashlib.sha256()
    for folder in ("finetune", "scripts/_benchmark"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
