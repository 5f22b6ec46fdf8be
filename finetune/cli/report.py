"""`finetune report`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "studies", type=Path, nargs="+", metavar="STUDY_DIR", help="folder of a study, such as runs/topics"
    )
    parser.add_argument(
        "--baseline", metavar="VARIANT", help="compare every other variant with this one, instead of all pairs"
    )


def run(args: Namespace) -> int:
    """Write a study's report again from its stored predictions, without training or scoring."""
    from finetune.cli.output import print_results, shown_aside
    from finetune.report import build

    for study in args.studies:
        with shown_aside(f"writing the report of {study}"):
            results = build(study, args.baseline)
        print_results(study, results)
    return 0
