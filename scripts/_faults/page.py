"""The page with the table, which a campaign writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from scripts._faults.judging import Outcome
from scripts._faults.kinds import KINDS

PATH = Path(__file__).parents[2] / "recipes" / "RELIABILITY.md"

HEAD = [
    "fault",
    "studies",
    "faults",
    "clear errors",
    "commands given again",
    "same in every bit",
    "steps lost by a fault: mean",
    "most",
    "silent losses",
]

OPENING = """# Reliability

What becomes of a study to which something happens. `scripts/faults` makes tiny real studies (full tuning, LoRA, a
part of the model, a head first and then all of it, runs side by side and one by one, a soup and an ensemble, chat),
lets faults come to them at moments that a seed draws, among all that a study does from the first library to the
report, gives the same command again until all is there, and holds every score, every prediction, every line of
`metrics.jsonl` and the report against a study of the same recipe to which nothing has happened.

Faults are real where they can be: signals, a file system that is full, permissions, bytes on the disk, a web server
that hangs up, a SLURM with daemons of its own. Four come from inside the process, at a place in the code: locks that
fail, the time of day, a loss that is no number, and memory that runs out.
"""

RULES = """
*Clear errors*: commands that ended with 1 or 2 and said why in a few lines, without a traceback; what was saved
before stays. *Commands given again*: what it took after the last fault until all was there. *Same in every bit*:
studies whose scores, predictions, logs and report are, but for times, those of the study without faults; without
memory, up to rounding. *Steps lost*: steps that were done again because of a fault, of the run that lost most. A step
and those between two checkpoints are allowed: two in two of three studies, which write a checkpoint after each step,
and in the others what a fifth of a second takes, ten to thirty steps. A kill with damage to a checkpoint counts as
two faults that come at once. *Silent losses*: studies that came to something else, or lost more.

## What is done about each
"""


def write(outcomes: Sequence[Outcome], seed: int) -> None:
    """Write the page."""
    PATH.write_text(text(outcomes, seed), encoding="utf-8")


def text(outcomes: Sequence[Outcome], seed: int) -> str:
    """The page of a campaign."""
    body = [row(name, [each for each in outcomes if each.kind == name]) for name in KINDS]
    body = [cells for cells in body if cells[1] != "0"]
    table = [f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *body, row("all", outcomes))]
    faults = sum(each.faults for each in outcomes)
    told = f"{len(outcomes)} studies with {faults} faults, by `scripts/faults --studies {len(outcomes)} --seed {seed}"
    about = [fill(f"- *{name}*. {kind.about}", 120, subsequent_indent="  ") for name, kind in KINDS.items()]
    return "\n".join([OPENING, f"{told} --write`:\n", *table, RULES, *about]) + "\n"


def row(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    """A line of the table."""
    lost = [steps for each in outcomes for steps in each.lost]
    same = sum(not each.wrong for each in outcomes)
    mean = f"{sum(lost) / len(lost):.1f}" if lost else "0"
    numbers = [
        len(outcomes),
        *(sum(getattr(each, what) for each in outcomes) for what in ("faults", "errors", "resumed")),
    ]
    return [name, *map(str, numbers), str(same), mean, str(max(lost, default=0)), str(len(outcomes) - same)]
