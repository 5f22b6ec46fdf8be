"""Writes into recipes/RESULTS.md what SLURM costs: groups of runs as tasks of an array, beside the same as processes.

python -m scripts._cluster [--groups N] [--steps N] [--rounds N]

Starts a SLURM of one node on this machine (as root, with Debian's packages), which does one task at a time. Each round
does the groups both ways, one after the other, every group being `finetune run --only VARIANT/SEED`, as a task runs it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from finetune.core.arithmetic import arithmetic_name, cpu_name
from finetune.core.run_dir import StudyDir
from scripts._pages import RESULTS, ROOT, put
from tests.launch.real_slurm import RealSlurm

BEGIN, END = "<!-- clusters: written by scripts/_cluster.py -->", "<!-- end of clusters -->"
CLUSTER = "{partition: usual, gpus: 1, cpus: 1, time: 50}"


def one_variant(path: Path, groups: int, steps: int) -> Path:
    """Write the quickstart's recipe with full tuning alone, so that both ways have the same runs to do."""
    recipe = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    recipe |= {"seeds": groups, "variants": {"full": recipe["variants"]["full"]}}
    recipe["train"]["min_steps"] = steps
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def finetune(environment: dict[str, str], *arguments: str) -> None:
    """Run the command line, which has to end well."""
    subprocess.run(
        [sys.executable, "-m", "finetune", *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
    )


def as_processes(recipe: Path, groups: int, output: Path, environment: dict[str, str]) -> float:
    """Do the groups as processes, one after the other; give the seconds."""
    begun = time.time()
    for seed in range(groups):
        finetune(environment, "run", str(recipe), "--only", f"full/{seed}", "--output", str(output))
    return time.time() - begun


def by_slurm(recipe: Path, groups: int, output: Path, environment: dict[str, str]) -> float:
    """Do them as tasks; give the seconds from when they are launched until the last result is there."""
    cluster = output.with_suffix(".yaml")
    cluster.write_text(CLUSTER, encoding="utf-8")
    finetune(environment, "launch", str(recipe), "--on", "slurm", "--cluster", str(cluster), "--output", str(output))
    begun = (StudyDir(output / "quickstart").launch / "launch.json").stat().st_mtime
    while len(results := [*output.glob("quickstart/*/seed-*/result.json")]) < groups:
        time.sleep(1)
    assert len(results) == groups, results
    return max(path.stat().st_mtime for path in results) - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    ways: dict[str, Callable[..., float]] = {"processes": as_processes, "SLURM": by_slurm}
    found: dict[str, list[float]] = {name: [] for name in ways}
    with RealSlurm(nodes=1) as slurm, tempfile.TemporaryDirectory() as folder:
        recipe = one_variant(Path(folder) / "recipe.yaml", asked.groups, asked.steps)
        environment = {**slurm.environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        for number in range(asked.rounds):
            for name, do in ways.items():
                found[name].append(do(recipe, asked.groups, Path(folder) / f"{name}-{number}", environment))
                print(f"{name}: {found[name][-1]:.0f} s", flush=True)
                while slurm.said("squeue", "-h"):  # the job that gathers takes a core, too
                    time.sleep(1)
    made = (
        f"{table(found)}\n\n{asked.groups} groups, one after the other on one core; {cpu_name()}, {arithmetic_name()}."
    )
    put(made, RESULTS, BEGIN, END)
    print(made)


def table(found: dict[str, list[float]]) -> str:
    """Both ways and their ratio, a column for each round."""
    ratios = [by / alone for by, alone in zip(found["SLURM"], found["processes"], strict=True)]
    rows = {name: [f"{seconds:.0f} s" for seconds in times] for name, times in found.items()}
    rows["ratio"] = [f"{ratio:.3f}" for ratio in ratios]
    head = ["", *(f"round {number}" for number in range(1, len(ratios) + 1))]
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
