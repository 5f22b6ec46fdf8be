"""`finetune check`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_recipe
from finetune.cli.collecting import uncollected
from finetune.cli.output import columns, shown_aside, wrapped

if TYPE_CHECKING:
    from finetune.cli.check_cache import Checked
    from finetune.recipe import ResolvedRecipe, Variant

DEFAULT = "default"


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--recipe-only", action="store_true", help="do not look at the data and the model")
    said = "where studies lie: what one of this recipe's has shown already is advised on; default: runs"
    parser.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR", help=said)
    parser.add_argument("--fresh", action="store_true", help="check again although nothing has changed since")


def run(args: Namespace) -> int:
    """Validate a recipe and show what it would run, and where each value comes from; starts nothing."""
    with uncollected():
        from finetune.recipe import load

        recipe = load(args.recipe, args.overrides)
        for line in report_lines(recipe):
            print(line)
        if not args.recipe_only:
            show_check(recipe, args.fresh, args.output)
    return 0


def show_check(recipe: ResolvedRecipe, fresh: bool, output: Path) -> None:
    """Print what a dry run finds, advice on it, and a note when it is a former one's."""
    found, note = data_and_parameters(recipe, fresh, output)
    print("", "data and parameters", *(wrapped(line, "  ", "    ") for line in found.lines), sep="\n")
    if found.advice:
        print("", "advice", sep="\n")
        for advice in found.advice:
            for number, (what, text) in enumerate(advice.lines()):
                print(wrapped(f"{what}{text}", "    " if number else "  ", "    "))
        names = ", ".join(dict.fromkeys(advice.rule for advice in found.advice))
        print(wrapped(f"`silence: [{names}]` in the recipe leaves it out; it changes no result", "  ", "  "))
    if note:
        print("", wrapped(note), sep="\n")


def data_and_parameters(recipe: ResolvedRecipe, fresh: bool, output: Path) -> tuple[Checked, str]:
    """Give what a dry run finds, and a note when it is a former one's because nothing has changed since. ``output``:
    where studies lie, of which an earlier one of this recipe's may advise."""
    from finetune.advice.advising import advise, results_file
    from finetune.cli import check_cache

    earlier = results_file(recipe, output)
    key = check_cache.key_of(recipe, earlier)
    if key and not fresh and (former := check_cache.recall(key)):
        when = f"{former.checked.astimezone():%Y-%m-%d %H:%M}"
        return former, f"nothing has changed since it was checked at {when}; --fresh checks it again"
    with shown_aside("checking the recipe"):
        from finetune.advice.advising import earlier_results
        from finetune.cli.data_notes import data_notes
        from finetune.study.preflight import preflight

        found = preflight(recipe, compared=True)
        advice = advise(recipe, found, earlier_results(recipe, found, output))
        checked = check_cache.Checked([*found.lines(), *data_notes(recipe, found)], advice)
    if key and key == check_cache.key_of(recipe, earlier):  # else something changed while it was read
        check_cache.remember(key, checked)
    return checked, ""


def report_lines(recipe: ResolvedRecipe) -> Iterator[str]:
    """Show what would run, then every value with its origin: first what all variants share, then each one's own."""
    variants, seeds = len(recipe.variants), len(recipe.seeds)
    least = recipe.until.at_least if recipe.until else seeds
    each, total = _count(seeds, "seed", least), _count(variants * seeds, "run", variants * least)
    total = f"{_count(variants, 'variant')} x {each} = {total}"
    yield wrapped(f"{recipe.name}: {total}", hanging="  ")
    for variant in recipe.variants:
        yield wrapped(
            f"  {variant.name}: strategy {variant.recipe.strategy.type}, digest {variant.digest}", hanging="    "
        )
    values = {variant.name: _values(recipe, variant) for variant in recipe.variants}
    first, *others = values.values()
    shared = [entry for entry in first if all(entry in other for other in others)]
    yield ""
    yield from _listing("every run" if others else "the runs", shared)
    for name, entries in values.items():
        own = [entry for entry in entries if entry not in shared]
        if own:
            yield ""
            yield from _listing(f"variant {name}", own)


Entry = tuple[str, str, str]
"""Dotted path, value, origin."""


def _values(recipe: ResolvedRecipe, variant: Variant) -> list[Entry]:
    """Every option of a variant; those that were written before those that are defaults."""
    from finetune.recipe.yaml_text import one_line

    entries = [
        (path, one_line(value), recipe.locate(path, variant.name, exact=True) or DEFAULT)
        for path, value in _leaves(variant.recipe.model_dump(mode="json"))
    ]
    return sorted(entries, key=lambda entry: entry[2] == DEFAULT)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not a section, with its dotted path; a list counts as one value unless it has sections."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{index}")
    else:
        yield path, value


def _listing(heading: str, entries: list[Entry]) -> Iterator[str]:
    """The entries in a column, each with its origin at the right where it fits, else on a line of its own."""
    width = columns()
    right = min(48, width - max(len(origin) for *_, origin in entries) - 4)
    yield heading
    for path, value, origin in entries:
        line, end = f"  {path}: {value}", f"# {origin}"
        if len(line) + len(end) + 2 <= width:
            yield f"{line:<{max(right, 0)}}  {end}"
        else:
            yield wrapped(f"{path}: {value}", "  ", "      ")
            yield wrapped(end, "      ", "      ")


def _count(number: int, what: str, least: int | None = None) -> str:
    start = "" if least in (None, number) else f"{least} to "
    return f"{start}{number} {what}{'' if number == 1 else 's'}"
