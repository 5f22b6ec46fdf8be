"""Notes of `finetune check` on the data beyond their sizes: labels, numbers, texts that are empty or there twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from finetune.advice.ungrouped_rows import label_column

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.recipe import Recipe, ResolvedRecipe
    from finetune.runner.resources import TaskData
    from finetune.study.preflight import Preflight


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
    if (column := label_column(recipe)) and all(counts.values()):
        yield from label_lines(counts, column)
    if portions := data.facts.get("portions"):
        each = (f"{name} {one['examples']:,} (weight {one['weight']:g})" for name, one in portions.items())
        yield f"training examples by source, each as often as its weight says: {', '.join(each)}"
    if column := getattr(recipe.task, "target", None):
        yield from _number_notes({name: split["facts"].get("numbers") for name, split in splits.items()}, column)


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
