"""Measures what `finetune predict` needs for a file of many rows: time, and the most anonymous memory (pages of mapped
files do not count) of the process.

python -m scripts._predictions MODEL [--rows N] [--ending parquet] [--words N]

The texts are made of words that are drawn with a seed; they stand in the column that the model's task reads.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

WORDS = [
    "the",
    "a",
    "of",
    "rocket",
    "orbit",
    "planet",
    "bank",
    "market",
    "share",
    "match",
    "goal",
    "team",
    "score",
    "price",
    "moon",
    "star",
    "fund",
    "coach",
]
LOOK = 0.05
"""Seconds between two looks at the process."""


@dataclass(frozen=True)
class Needed:
    """What a prediction has needed."""

    rows: int
    seconds: float
    most: int
    """Bytes of anonymous memory, at most."""

    def __str__(self) -> str:
        speed = self.rows / self.seconds
        return f"{self.rows:,} rows: {self.seconds:,.0f} s ({speed:,.0f} a second), {self.most / 1e6:,.0f} MB at most"


def write_rows(path: Path, rows: int, words: int = 8, column: str = "text") -> Path:
    """Write a csv file of so many texts, of about so many ``words``."""
    rng = random.Random(0)
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["id", column])
        lines.writerows([number, " ".join(rng.choices(WORDS, k=rng.randint(2, 2 * words)))] for number in range(rows))
    return path


def anonymous(process: int) -> int:
    """Bytes of anonymous memory that a process has now; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)


def measure(model: str, given: Path, out: Path, rows: int) -> Needed:
    """Predict the file ``given`` into ``out`` in a process of its own, and watch it."""
    begun, most = time.monotonic(), 0
    argv = [sys.executable, "-m", "finetune", "predict", model, str(given), "-o", str(out)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, anonymous(process.pid))
            time.sleep(LOOK)
    if process.returncode:
        raise SystemExit(f"finetune predict has ended with {process.returncode}")
    return Needed(rows, time.monotonic() - begun, most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=8)
    parser.add_argument("--column", default="text")
    parser.add_argument("--ending", default="parquet", choices=("parquet", "csv", "jsonl"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = write_rows(Path(folder) / "rows.csv", args.rows, args.words, args.column)
        print(measure(args.model, given, Path(folder) / f"out.{args.ending}", args.rows))


if __name__ == "__main__":
    main()
