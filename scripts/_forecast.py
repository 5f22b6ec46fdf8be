"""Writes the table of forecasts into recipes/RESULTS.md: what `finetune plan --devices` says, beside what came of it.

python -m scripts._forecast [--devices N] [--seeds N]

Runs a pilot of two seeds of `quickstart.yaml` on one device's share of this machine, forecasts the study with more
seeds on N devices, and runs that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from finetune.core.arithmetic import arithmetic_name, cpu_name
from scripts._pages import RESULTS, ROOT, put

BEGIN, END = "<!-- forecast: written by scripts/_forecast.py -->", "<!-- end of forecast -->"


def finetune(*arguments: str, **variables: str) -> None:
    """Run the command line, after which a run may have learnt nothing."""
    done = subprocess.run([sys.executable, "-m", "finetune", *arguments], env={**os.environ, **variables}, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)


def actual(study: Path) -> dict[str, Any]:
    """Seconds from the first run's beginning to the last one's end, and the peak memory of each run."""
    runs = [(path.stat().st_mtime, json.loads(path.read_text("utf-8"))) for path in study.glob("*/seed-*/result.json")]
    begun = min(ended - result["seconds"] for ended, result in runs)
    peaks = [result["peak_memory_bytes"] for _, result in runs]
    return {"runs": len(runs), "seconds": max(ended for ended, _ in runs) - begun, "peaks": (min(peaks), max(peaks))}


def table(found: dict[str, Any], real: dict[str, Any]) -> str:
    """Forecast against actual, a line for each figure."""
    low, expected, high = found["seconds"]
    least, most = found["peak_memory_bytes"]
    rows = [
        ("time", f"{expected:.0f} s [{low:.0f}, {high:.0f}]", f"{real['seconds']:.0f} s", real["seconds"] / expected),
        ("memory, largest run", f"{most / 1e9:.2f} GB", f"{real['peaks'][1] / 1e9:.2f} GB", real["peaks"][1] / most),
        ("memory, smallest run", f"{least / 1e9:.2f} GB", f"{real['peaks'][0] / 1e9:.2f} GB", real["peaks"][0] / least),
    ]
    lines = ["| | forecast | actual | ratio |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {said} | {was} | {ratio:.2f} |" for name, said, was, ratio in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=4)
    asked = parser.parse_args()
    recipe, devices, seeds = str(ROOT / "recipes" / "quickstart.yaml"), str(asked.devices), f"seeds={asked.seeds}"
    threads = str(max(len(os.sched_getaffinity(0)) // asked.devices, 1))
    with tempfile.TemporaryDirectory() as folder:
        pilot, whole, said = Path(folder) / "pilot", Path(folder) / "whole", Path(folder) / "plan.json"
        finetune("run", recipe, "seeds=2", "--output", str(pilot), OMP_NUM_THREADS=threads)
        of_pilot = ["--pilot", str(pilot / "quickstart"), "--devices", devices, "--json", str(said)]
        finetune("plan", recipe, seeds, *of_pilot)
        finetune("run", recipe, seeds, "--devices", devices, "--output", str(whole))
        found, real = json.loads(said.read_text("utf-8"))["devices"], actual(whole / "quickstart")
    where = f"{real['runs']} runs of `quickstart.yaml` on {devices} devices, after a pilot of two seeds"
    made = f"{table(found, real)}\n\n{where}; {cpu_name()}, {arithmetic_name()}."
    put(made, RESULTS, BEGIN, END)
    print(made)


if __name__ == "__main__":
    main()
