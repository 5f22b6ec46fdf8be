"""`finetune evaluate`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from finetune.cli.arguments import add_overrides


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY_DIR", help="folder of a study, such as runs/topics")
    add_overrides(
        parser, "other held-out tasks or scoring, as in evaluate='[{name: tweets, data: {path: tweets.csv}}]'"
    )


def run(args: Namespace) -> int:
    """Score the trained runs of a study again, on the same or on other held-out tasks."""
    from finetune.cli.collecting import uncollected
    from finetune.cli.output import finish, live_progress

    with live_progress() as progress:
        with uncollected(), progress.phase("loading the libraries"):
            from finetune.study.rescoring import rescore

        outcome = rescore(args.study, args.overrides, progress)
    return finish(outcome)
