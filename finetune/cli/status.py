"""`finetune status`."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections import Counter
from pathlib import Path


def add_study(parser: ArgumentParser) -> None:
    """Add the folder of a launched study."""
    parser.add_argument("study", type=Path, metavar="STUDY_DIR", help="folder of a study, such as runs/topics")


def add_arguments(parser: ArgumentParser) -> None:
    add_study(parser)
    parser.add_argument("--gather", action="store_true", help=SUPPRESS)  # for the job that comes last


def run(args: Namespace) -> int:
    """Show where each run of a launched study stands; ends with 1 where one failed, or is left and nobody does it."""
    from finetune.cli.output import fitted
    from finetune.core.run_dir import FAILED
    from finetune.launch.launching import LAUNCHERS, gather
    from finetune.launch.record import read_launch
    from finetune.launch.status import run_states

    if args.gather:
        return gather(args.study, print)
    launch = read_launch(args.study)
    launcher = LAUNCHERS[launch.on]
    states = run_states(launch, launcher.tasks(launch))
    print(f"{launch.study.path.name}: launched {launch.at} on {launch.on}, as {launcher.describe(launch)}")
    rows = [
        {
            "run": each.name,
            "state": each.state,
            "step": "" if each.step is None else str(each.step),
            "where": each.where,
            "why": each.why,
        }
        for each in states
    ]
    print(*fitted(rows, dispensable=("where", "step")), sep="\n")
    counts = Counter(each.state for each in states)
    print(f"{', '.join(f'{count} {state}' for state, count in counts.items())}; {len(states)} in all")
    bad = counts.keys() & {*FAILED, "interrupted", "not begun"}
    return 1 if bad else 0
