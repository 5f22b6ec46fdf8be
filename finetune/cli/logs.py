"""`finetune logs`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from finetune.cli.status import add_study


def add_arguments(parser: ArgumentParser) -> None:
    add_study(parser)
    parser.add_argument("run", nargs="?", metavar="VARIANT[/SEED]", help="those of this variant, or run, alone")


def run(args: Namespace) -> int:
    """Print what the processes of a launched study have said, of each group of runs after the other."""
    from finetune.launch.record import named, read_launch

    launch = read_launch(args.study)
    paths = dict.fromkeys(launch.log(group) for group in named(launch, args.run))
    for path in [*paths, *([] if args.run else [launch.gather_log])]:
        if path.exists():
            print(f"==> {path}", flush=True)
            sys.stdout.write(path.read_text(encoding="utf-8", errors="replace"))
    return 0
