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
    from finetune.launch.launching import LAUNCHERS
    from finetune.launch.record import named, read_launch

    launch = read_launch(args.study)
    groups = named(launch, args.run)
    paths = dict.fromkeys(path for group in groups for path in launch.logs(group))
    for path in [*paths, *([] if args.run else [launch.gather_log])]:
        if path.exists():
            print(f"==> {path}", flush=True)
            sys.stdout.write(path.read_text(encoding="utf-8", errors="replace"))
    for group in groups:
        if not launch.log(group).exists() and (said := LAUNCHERS[launch.on].said(launch, group)):
            print(f"==> {launch.groups[group].only}, of which there is no log\n{said.rstrip()}", flush=True)
    return 0
