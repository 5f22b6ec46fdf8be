"""`finetune run`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from finetune.cli.arguments import add_recipe


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    said = "do this variant's runs alone, or one run; other processes may do the others at the same time"
    parser.add_argument("--only", metavar="VARIANT[/SEED]", help=said)


def run(args: Namespace) -> int:
    """Train every variant of a recipe under every seed, score, and report; run again to resume."""
    from rich.console import Console

    from finetune.cli.collecting import uncollected
    from finetune.cli.output import finish
    from finetune.core.progress import make_progress

    with make_progress(Console()) as progress:
        with uncollected(), progress.phase("loading the libraries"):
            from finetune.recipe import load

            recipe = load(args.recipe, args.overrides)
            # Only now: it brings torch, and a recipe's mistakes should not wait for it.
            from finetune.study.study import run_study

        outcome = run_study(recipe, args.output, progress, args.only)
    return finish(outcome)
