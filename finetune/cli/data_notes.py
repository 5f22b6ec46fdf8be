"""Notes of `finetune check` on the data beyond their sizes: labels, and columns that may say what belongs together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune.core.registry import TASKS
from finetune.data.rows import PORTION

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.data.clusters import Repeating
    from finetune.recipe import Recipe, ResolvedRecipe
    from finetune.runner.resources import TaskData
    from finetune.study.preflight import Preflight

COLUMNS = 4
"""Columns that are named, those with most values."""


def data_notes(recipe: ResolvedRecipe, found: Preflight) -> list[str]:
    """Write lines on the data of every variant, each once."""
    lines = (line for each in recipe.variants for line in _notes(each.recipe, found.data[each.name]))
    return list(dict.fromkeys(lines))


def _notes(recipe: Recipe, data: TaskData) -> Iterator[str]:
    from finetune.data.labels import label_lines

    splits = data.facts["splits"]
    if repeated := data.facts["duplicates_dropped"]:
        beside = data.facts.get("duplicates_differing", 0)
        differing = f"; {beside:,} of them have another answer, and only the first one's counts" if beside else ""
        yield f"{repeated:,} rows of data.train repeat an earlier one, and are left out (data.duplicates){differing}"
    for name, table in {**data.learnt, **data.tables}.items():
        yield from _empty_notes(table, data.task_of(name).inputs(), data.at[name])
    counts = {name: split["facts"].get("labels") for name, split in splits.items()}
    if (column := _label_column(recipe)) and all(counts.values()):
        yield from label_lines(counts, column)
    if portions := data.facts.get("portions"):
        each = (f"{name} {one['examples']:,} (weight {one['weight']:g})" for name, one in portions.items())
        yield f"training examples by source, each as often as its weight says: {', '.join(each)}"
    if column := getattr(recipe.task, "target", None):
        yield from _number_notes({name: split["facts"].get("numbers") for name, split in splits.items()}, column)
    if "group" in type(recipe.task).model_fields:
        yield from _cluster_notes(recipe, data)


def _empty_notes(table: Dataset, inputs: Sequence[str], at: str) -> Iterator[str]:
    """Say which examples have no text at all, of those that are texts."""
    from finetune.data.labels import shows_nothing
    from finetune.data.nested import values_of
    from finetune.data.rows import places_of
    from finetune.data.sources import slices

    empty = list[str]()
    for _, part in slices(table, f"looking for empty texts in {at}"):
        rows = zip(places_of(part, at), *(values_of(part, name) for name in inputs), strict=True)
        empty += [where for where, *row in rows if all(isinstance(each, str) and shows_nothing(each) for each in row)]
    if empty:
        examples = "1 example has" if len(empty) == 1 else f"{len(empty):,} examples have"
        yield f"{examples} no text: nothing of it can be seen, in {empty[0]}{' and others' if len(empty) > 1 else ''}"


def _number_notes(found: Mapping[str, Mapping[str, float] | None], column: str) -> Iterator[str]:
    """Summarise the numbers in ``column`` by set of examples, and say which sets reach beyond what is learnt from."""
    known = {name: each for name, each in found.items() if each}
    each = "; ".join(
        f"{name} mean {one['mean']:.4g}, SD {one['sd']:.4g}, from {one['min']:.4g} to {one['max']:.4g}"
        for name, one in known.items()
    )
    if known:
        yield f"numbers in column '{column}': {each}"
    learnt = known.get("train")
    for name, one in known.items() if learnt else ():
        if learnt and abs(one["mean"] - learnt["mean"]) > learnt["sd"]:
            far = abs(one["mean"] - learnt["mean"]) / learnt["sd"]
            yield f"the numbers of '{name}' are {far:.1f} SDs from those that are learnt, on average: in the same unit?"


def _label_column(recipe: Recipe) -> str | None:
    """The column with the answers, where these are labels: the columns, where each label has one."""
    answer = TASKS.get(recipe.task.type).answer
    said = getattr(recipe.task, answer, None) if answer in ("label", "labels") else None
    return ", ".join(said) if isinstance(said, list) else said


def _cluster_notes(recipe: Recipe, data: TaskData) -> Iterator[str]:
    from finetune.data.clusters import repeating_columns

    own, split = data.task.group, recipe.data.split
    carved = bool(split.test or split.validation)
    if own is None and split.group is not None:
        yield (
            f"data.split.group keeps each '{split.group}' on one side, and errors still count every example by itself: "
            f"write `group: {split.group}` in task"
        )
    elif own is not None and carved and split.group != own:
        yield f"one '{own}' (task.group) may be both learnt from and held out: write `group: {own}` in data.split"
    if own is not None or split.group is not None:
        return
    tables = {**data.learnt, **data.tables}
    columns = repeating_columns(tables, _used(recipe, data), _label_column(recipe))
    for column in columns[:COLUMNS]:
        yield _note(column, recipe, carved)
    if len(columns) > COLUMNS:
        names = ", ".join(f"'{column.name}'" for column in columns[COLUMNS:])
        yield f"the values of further unused columns repeat: {names}"


def _note(column: Repeating, recipe: Recipe, carved: bool) -> str:
    name, split = column.name, recipe.data.split
    shared = ", ".join(f"{count:,} with {at}" for at, count in column.sides.items() if count)
    sides = f"; of its values, the training examples share {shared}" if shared else ""
    where = f"`group: {name}` in task" + (f" and `group: {name}` in data.split" if carved else "")
    own_files = [
        at for at, count in column.sides.items() if count and not (at in ("test", "validation") and getattr(split, at))
    ]
    leaks = " and `leaks: drop` in data" if own_files and recipe.data.leaks == "refuse" else ""
    first = [
        *([f"fill in the {column.gaps:,} rows that have none"] if column.gaps else []),
        *([f"add the column to {', '.join(column.absent)}"] if column.absent else []),
    ]
    return (
        f"column '{name}' is not used, and its values repeat: {column.values:,} in {column.rows:,} rows, "
        f"{column.together:,} of which have theirs in common with another{sides}. If such rows belong together (a "
        f"document, an author, a patient), {''.join(f'{each}, ' for each in first)}write {where}{leaks}: otherwise "
        "errors come out too small, and verdicts false"
    )


def _used(recipe: Recipe, data: TaskData) -> set[str]:
    """The columns that the recipe uses, by name or in a new column."""
    from finetune.data.mapping import sources_of

    known = next(iter(data.learnt.values())).column_names
    ours = [PORTION] if recipe.data.portions else []
    said = {recipe.data.split.stratify, *ours, *data.task.inputs(), *_texts(recipe.task.model_dump())}
    train = recipe.data.train if isinstance(recipe.data.train, list) else [recipe.data.train]
    made = [template for each in train for template in each.columns.values()]
    sources = set[str]().union(*(sources_of(template, known) for template in made))
    return {name for name in known if name in said or name in sources}


def _texts(options: Mapping[str, Any]) -> Iterator[str]:
    for value in options.values():
        yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))
