"""`finetune diagnose`."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from finetune.cli.arguments import add_recipe
from finetune.cli.output import code_of, columns, fitted, live_progress, wrapped

DISPENSABLE = ("levels", "of it test-set noise", "SD", "95 % interval")
"""Columns in the order in which a narrow terminal loses them."""


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--variant", metavar="NAME", help="which variant; default: the recipe's first")
    parser.add_argument(
        "--runs", type=int, choices=(9, 16, 25), help="3, 4 or 5 seeds of each source; default: 16, or 25 for 5 sources"
    )
    parser.add_argument(
        "--sources", type=_names, default=(), metavar="A,B", help="which to cross; default: all that matter here"
    )
    parser.add_argument("--seeds", type=_seeds, default=6, metavar="N", help="fresh seeds of the trial; default: 6")
    parser.add_argument("--no-test", action="store_true", help="name the change, and do not try it")
    parser.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _seeds(text: str) -> int:
    number = int(text)
    if number < 6:
        raise ArgumentTypeError(f"{number} are too few: with fewer than 6, no exact test of pairs can reach 0.05")
    return number


def run(args: Namespace) -> int:
    """Find out which source of randomness a variant's spread comes from, name one change to try, and try it."""
    from finetune.cli.collecting import uncollected

    with uncollected():
        from finetune.recipe import load

        recipe = load(args.recipe, args.overrides)
        # Only now: it brings torch, and a recipe's mistakes should not wait for it.
        from finetune.diagnose.diagnose import diagnose, try_remedy
        from finetune.report import build
        from finetune.report.sections.diagnosis import sentences

    found = diagnose(recipe, args.output, args.variant, args.runs, args.sources, args.overrides, live_progress)
    if found.speaks:
        build(found.folder.path)  # again, with what was found
        show(found.content)
    if found.trial is not None and not args.no_test:
        try_remedy(found, args.output, args.seeds, live_progress)
        if found.speaks:
            build(found.folder.path)
            print(wrapped(sentences(found.content)[-1]))
    if found.speaks:
        print(f"report: {found.folder.report / 'index.html'}")
        for failed in found.failed:
            print(
                wrapped(f"{failed['variant']}, seed {failed['seed']}: {failed['status']}: {failed['reason']}", "", "  ")
            )
    return code_of(bool(found.failed))


def show(content: dict[str, Any]) -> None:
    """The diagnosis: a table with as many columns as the terminal has room for, and what follows from it."""
    from finetune.report.sections.diagnosis import sentences

    which = f"{content['study']}, {content['variant']}: {content['metric']} on {content['task']}"
    print(wrapped(f"{which}, {content['runs']} runs, {content['levels']} seeds of each source", hanging="  "))
    for line in lines(content, columns()):
        print(line)
    for sentence in sentences(content):
        print(wrapped(sentence, hanging="  "))


def lines(content: dict[str, Any], width: int) -> list[str]:
    """The table, in lines of at most ``width`` columns where the first two fit; none without a decomposition."""
    from finetune.core.numbers import THIN
    from finetune.report.sections.diagnosis import rows

    if content["decomposition"] is None:
        return []
    table = [{name: cell.replace(THIN, " ") for name, cell in row.items()} for row in rows(content)]
    return fitted(table, DISPENSABLE, width)
