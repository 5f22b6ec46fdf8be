"""Let faults come to real studies at moments drawn by a seed, and count what became of each."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from scripts._faults import clusters, disks, insides, page, processes  # noqa: F401 - they enter their kinds
from scripts._faults.judging import Outcome
from scripts._faults.kinds import KINDS, Kind, Trial
from scripts._faults.studies import Bench, Hangs, fork_server
from tests.launch.real_slurm import PROGRAMS


def possible(kind: Kind) -> bool:
    """Tell whether this machine can have a kind of fault."""
    if kind.needs and os.getuid() != 0:
        return False
    return kind.needs != "slurm" or all(shutil.which(program) for program in PROGRAMS)


def drawn(kinds: list[Kind], rng: random.Random) -> Iterator[Kind]:
    """Give kinds for ever: all of them in turn, in an order that is drawn for each turn; of those that take long, each
    every second time."""
    turn = 0
    while True:
        some = [kind for number, kind in enumerate(kinds) if not kind.cold or (number + turn) % 2 == 0]
        yield from rng.sample(some, len(some))
        turn += 1


def attempt(bench: Bench, kind: Kind, seed: str) -> Outcome:
    """Do one study under a fault of this kind."""
    rng = random.Random(seed)
    shape = kind.draw(rng)
    outcome, begun = Outcome(kind.name, shape.name), time.monotonic()
    trial = Trial(bench, rng, outcome, shape)
    try:
        kind.inflict(trial)
    except Hangs as hangs:
        outcome.wrong.append(str(hangs))
    except Exception:
        outcome.wrong.append(traceback.format_exc())
    outcome.seconds = time.monotonic() - begun
    for study in trial.studies:
        if not outcome.wrong:
            shutil.rmtree(study.folder, ignore_errors=True)
        else:
            outcome.wrong.append(f"kept in {study.folder}")
    return outcome


def campaign(kinds: list[Kind], asked: argparse.Namespace, folder: Path) -> list[Outcome]:
    """Do studies until there are enough, or the time is up."""
    begun, found = time.monotonic(), list[Outcome]()
    with fork_server(folder) as warm, ExitStack() as stack:
        bench = Bench(folder, warm)
        for number, kind in enumerate(drawn(kinds, random.Random(asked.seed)), start=1):
            if number > asked.studies or (asked.minutes and time.monotonic() - begun > 60 * asked.minutes):
                break
            if kind.needs == "slurm" and not clusters.KEPT:
                stack.enter_context(clusters.cluster())
            try:
                found.append(attempt(bench, kind, f"{asked.seed}/{number}"))
            except KeyboardInterrupt:  # what was found counts
                break
            print(f"{number}/{asked.studies} · {time.monotonic() - begun:.0f} s · {found[-1]}", flush=True)
    return found


def main() -> int:
    """Returns 0 when nothing was lost, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("--studies", type=int, default=60, help="how many; default: 60")
    parser.add_argument("--seed", type=int, default=0, help="of kinds, recipes and moments")
    parser.add_argument("--minutes", type=float, help="begin no study after so many")
    parser.add_argument("--only", nargs="+", metavar="KIND", choices=list(KINDS), help="; ".join(KINDS))
    parser.add_argument("--write", action="store_true", help=f"write the table into {page.PATH.name}")
    asked = parser.parse_args()
    kinds = [kind for kind in KINDS.values() if not asked.only or kind.name in asked.only]
    if left_out := [kind.name for kind in kinds if not possible(kind)]:
        print(f"not possible here, without root or SLURM: {', '.join(left_out)}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="finetune-faults-"))
    outcomes = campaign([kind for kind in kinds if possible(kind)], asked, folder)
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    faults = sum(outcome.faults for outcome in outcomes)
    print(f"{len(outcomes)} studies, {faults} faults; {len(wrong)} studies came to something else")
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
    if asked.write:
        page.write(outcomes, asked.seed)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
