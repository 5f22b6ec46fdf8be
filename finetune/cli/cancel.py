"""`finetune cancel`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from finetune.cli.status import add_study


def add_arguments(parser: ArgumentParser) -> None:
    add_study(parser)


def run(args: Namespace) -> int:
    """End a launched study; what its runs have done is saved, and launching it again goes on with them."""
    from finetune.launch.launching import LAUNCHERS, cancel

    launch = cancel(args.study)
    print(f"{launch.study.path.name}: cancelled {LAUNCHERS[launch.on].describe(launch)}; what was done is saved")
    return 0
