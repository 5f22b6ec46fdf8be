"""Rows that belong together stay together, and count together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE, TASKS

if TYPE_CHECKING:
    from finetune.data.clusters import Repeating
    from finetune.recipe import Recipe

COLUMNS = 4
"""Columns that are named, those with most values."""


@ADVICE.register
class UngroupedRows(Rule):
    """Keep rows of one author, document or patient on one side of a split, and count errors by them."""

    name = "ungrouped-rows"
    why = "what is alike in such rows is seen in training and scored, and errors come out too small, and verdicts false"
    source = "Søgaard et al. 2021, We Need to Talk About Random Splits; Cameron and Miller 2015, section II"

    def look(self, seen: Seen) -> Iterator[Saw]:
        recipe, data = seen.recipe, seen.data
        if "group" not in type(recipe.task).model_fields:
            return
        own, split = recipe.task.group, recipe.data.split
        if own is None and split.group is not None:
            kept = f"data.split.group keeps each '{split.group}' on one side"
            found = f"{kept}, and errors still count every example by itself"
            yield Saw(found, f"write `group: {split.group}` in task")
        elif own is not None and (split.test or split.validation) and split.group != own:
            found = f"one '{own}' (task.group) may be both learnt from and held out"
            yield Saw(found, f"write `group: {own}` in data.split")
        if own is not None or split.group is not None:
            return
        from finetune.data.clusters import repeating_columns

        columns = repeating_columns({**data.learnt, **data.tables}, _used(seen), label_column(recipe))
        for column in columns[:COLUMNS]:
            yield _saw(column, recipe)
        if len(columns) > COLUMNS:
            names = ", ".join(f"'{column.name}'" for column in columns[COLUMNS:])
            yield Saw(
                f"the values of further unused columns repeat: {names}", "the same, where their rows belong together"
            )


def label_column(recipe: Recipe) -> str | None:
    """The column with the answers, where these are labels: the columns, where each label has one."""
    answer = TASKS.get(recipe.task.type).answer
    said = getattr(recipe.task, answer, None) if answer in ("label", "labels") else None
    return ", ".join(said) if isinstance(said, list) else said


def _saw(column: Repeating, recipe: Recipe) -> Saw:
    name, split = column.name, recipe.data.split
    shared = ", ".join(f"{count:,} with {at}" for at, count in column.sides.items() if count)
    sides = f"; of its values, the training examples share {shared}" if shared else ""
    carved = bool(split.test or split.validation)
    where = f"`group: {name}` in task" + (f" and `group: {name}` in data.split" if carved else "")
    own_files = [
        at for at, count in column.sides.items() if count and not (at in ("test", "validation") and getattr(split, at))
    ]
    leaks = " and `leaks: drop` in data" if own_files and recipe.data.leaks == "refuse" else ""
    first = [
        *([f"fill in the {column.gaps:,} rows that have none"] if column.gaps else []),
        *([f"add the column to {', '.join(column.absent)}"] if column.absent else []),
    ]
    found = (
        f"column '{name}' is not used, and its values repeat: {column.values:,} in {column.rows:,} rows, "
        f"{column.together:,} of which have theirs in common with another{sides}"
    )
    belong = "if such rows belong together (a document, an author, a patient)"
    return Saw(found, f"{belong}, {''.join(f'{each}, ' for each in first)}write {where}{leaks}")


def _used(seen: Seen) -> set[str]:
    """The columns that the recipe uses, by name or in a new column."""
    from finetune.data.mapping import sources_of
    from finetune.data.rows import PORTION

    recipe, data = seen.recipe, seen.data
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
