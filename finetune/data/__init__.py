"""Data: sources, columns, splits and leak checks. The currency is ``datasets.Dataset``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from finetune.core.errors import InputError, Problem, bad_input
from finetune.data.options import DataOptions, Portion, Source

if TYPE_CHECKING:
    from datasets import Dataset

TRAIN, VALIDATION, TEST = "train", "validation", "test"
"""The parts that `data` itself gives."""
ORDER = {VALIDATION: 0, TEST: 1}
"""Those that come before the named ones."""


@dataclass(frozen=True)
class Splits:
    """The datasets that a study learns from and those that it is scored on.

    Every dataset has a column ``example``, its row number from 0, and one that says which number it has in its source
    (:data:`finetune.data.rows.ROW`). ``held_out`` has ``test`` first, when there is one,
    and then the named sets in the recipe's order. ``facts`` is what `data.json` says: ``splits`` (by name: examples,
    fingerprint, source), ``duplicates_dropped`` (and ``duplicates_differing``, those with another
    answer), ``pool`` (the examples that those to train on were drawn from, carved
    parts and what `limit` has left out among them) and ``leaks`` (``checked``, ``found``, ``action``, ``dropped``, and
    how many validation examples are in another held-out set too: ``validation_held_out``; sets of another task whose
    examples are not comparable with those learnt from: ``not_compared``; where examples belong to
    clusters, ``groups`` with the ``column``, how many clusters were ``found`` on both sides, and the examples
    ``dropped``).
    """

    train: Dataset
    validation: Dataset | None
    held_out: dict[str, Dataset]
    facts: dict[str, Any]
    stratified: dict[str, str | None] = field(default_factory=dict)
    """The parts that were carved from the training data, with the column whose proportions they keep."""

    def at(self, name: str) -> str:
        """Give the recipe path of a part: of a carved one that of its share."""
        if name in (TRAIN, VALIDATION, TEST):
            return f"{'data.split' if name in self.stratified else 'data'}.{name}"
        return f"evaluate.{name}.data"


@dataclass(frozen=True)
class Reading:
    """How a task reads a table."""

    inputs: Sequence[str]
    """The columns that say what an example is: two rows with the same ones are the same example."""
    check: Callable[[Dataset, str], None]
    """The task's own check, called on every table as it was read, with its recipe path."""
    cluster: str | None = None
    """The column that `task.group` names, whose values must not be both learnt from and held out."""
    convert: Callable[[Dataset, str], Dataset] | None = None
    """Makes of every table, before it is checked, what the task works on; given its recipe path too."""

    beside: Sequence[str] = ()
    """Columns of which an example has other values where another answer is right, such as that of labels."""

    def refuse_repeated(self) -> None:
        """Refuse one column in several places: whoever names it twice has meant another."""
        if twice := next((name for name in self.inputs if self.inputs.count(name) > 1), None):
            found = f"column '{twice}' is named in several places of what an example is made of"
            raise bad_input("task", found, f"name another column: the places are {', '.join(self.inputs)}")


def load_splits(
    options: DataOptions,
    held_out: Mapping[str, Source],
    split_seed: int,
    reading: Reading,
    own: Mapping[str, Reading] | None = None,
) -> Splits:
    """Read, check, clean and divide all data of a study.

    Args:
        options: the recipe's `data` section.
        held_out: further held-out sets, by name (the recipe's `evaluate` section).
        split_seed: seeds the split and the samples of `limit`.
        reading: how tables are read.
        own: how the named sets are read instead that are scored on a task of their own. They are searched for examples
            that are learnt from where as many columns make an example of both.

    Raises:
        InputError: with the problems of all sources, or else those of cleaning, splitting and leaks.
    """
    from finetune.data import checks

    inputs, cluster = reading.inputs, reading.cluster
    for how in (reading, *(own or {}).values()):
        how.refuse_repeated()
    train, *others = _read_all(_parts(options, held_out), split_seed, reading, own or {})
    pool, repeated = checks.without_duplicates(train.read, inputs, options.duplicates, train.at)
    differing = checks.count_differing(train.read, inputs, reading.beside) if repeated else 0
    train, *carved = _divide(replace(train, data=pool), options, split_seed)
    others = sorted([*carved, *others], key=lambda part: ORDER.get(part.name, len(ORDER)))
    held = {part.at: part.inputs_as(inputs) for part in others if part.comparable(inputs)}
    kept, leaks = checks.without_leaks(train.read, held, inputs, options.leaks)
    if cluster is not None:
        grouped = {part.at: part.clusters_as(cluster) for part in others if part.reading.cluster is not None}
        kept, leaks["groups"] = checks.without_shared_clusters(kept, grouped, cluster, options.leaks)
    if apart := [part.name for part in others if not part.comparable(inputs)]:
        leaks["not_compared"] = apart
    leaking = train.read.num_rows - kept.num_rows  # in no draw of another seed either, where the held-out file is fixed
    facts = {
        "duplicates_dropped": repeated,
        **({"duplicates_differing": differing} if differing else {}),
        "pool": pool.num_rows + train.left - leaking,
        "leaks": leaks,
    }
    if options.portions:
        kept, portions = _weighted(kept, options, split_seed)
        facts |= portions
    stratified = {part.name: options.split.stratify for part in carved}
    return replace(_splits([replace(train, data=kept), *others], inputs, facts), stratified=stratified)


def _weighted(train: Dataset, options: DataOptions, seed: int) -> tuple[Dataset, dict[str, Any]]:
    """Give the training examples of a mixture as often as they are learnt from, and the facts about its sources."""
    from finetune.data.mixture import weighted
    from finetune.data.rows import PORTION

    known = options.portions
    data, counts, distinct = weighted(train, {name: each.weight for name, each in known.items()}, seed)
    there = Counter(train[PORTION])
    for number, name in enumerate(known):
        if there[name] and not counts[name]:
            found = f"{known[name].weight:g} leaves none of the {there[name]:,} training examples of '{name}'"
            raise bad_input(f"data.train.{number}.weight", found, "raise it, or take the source out")
    facts = {
        name: {"source": each.title_path, "weight": each.weight, "examples": counts[name]}
        for name, each in known.items()
    }
    return data, {"portions": facts, "distinct": distinct}


@dataclass(frozen=True)
class _Part:
    """One set of examples: its name, its recipe path, where it comes from, and what was read."""

    name: str
    at: str
    source: Source | Sequence[Portion]
    data: Dataset | None = None
    left: int = 0
    """Rows that `limit` has left in the source, as far as the last one kept tells."""
    how: Reading | None = None

    @property
    def path(self) -> str:
        """Name what it was read from."""
        sources = [self.source] if isinstance(self.source, Source) else self.source
        return ", ".join(each.title_path for each in sources)

    @property
    def read(self) -> Dataset:
        assert self.data is not None
        return self.data

    @property
    def reading(self) -> Reading:
        assert self.how is not None
        return self.how

    def comparable(self, inputs: Sequence[str]) -> bool:
        """Tell whether as many columns as ``inputs`` make an example here."""
        return len(self.reading.inputs) == len(inputs)

    def inputs_as(self, inputs: Sequence[str]) -> Dataset:
        """Give the columns that make an example here under the names ``inputs``."""
        return _renamed(self.read, dict(zip(inputs, self.reading.inputs, strict=True)))

    def clusters_as(self, cluster: str) -> Dataset:
        """Give the column of clusters under the name ``cluster``."""
        return _renamed(self.read, {cluster: str(self.reading.cluster)})


def _renamed(data: Dataset, columns: Mapping[str, str]) -> Dataset:
    """Give some columns of ``data``, by their new names, and `example`; all of it where their names stay."""
    from finetune.data.sources import EXAMPLE, as_dataset, as_table

    if all(name == own for name, own in columns.items()):
        return data
    table = as_table(data)
    chosen = table.select([*columns.values(), EXAMPLE])
    return as_dataset(chosen.rename_columns([*columns, EXAMPLE]))


def _parts(options: DataOptions, held_out: Mapping[str, Source]) -> list[_Part]:
    """List the sets of examples that are to be read, training examples first."""
    has_test = options.test is not None or bool(options.split.test)
    taken = [name for name in held_out if name in (TRAIN, VALIDATION) or (name == TEST and has_test)]
    if taken:
        raise InputError(
            Problem(f"'{name}' is the name of a part of `data`", "choose another name", f"evaluate.{name}.name")
            for name in taken
        )
    own: dict[str, Any] = {TRAIN: options.train, VALIDATION: options.validation, TEST: options.test}
    parts = [_Part(name, f"data.{name}", source) for name, source in own.items() if source is not None]
    return parts + [_Part(name, f"evaluate.{name}.data", source) for name, source in held_out.items()]


def _read_all(parts: Sequence[_Part], seed: int, reading: Reading, own: Mapping[str, Reading]) -> list[_Part]:
    """The parts with their examples, checked; the problems of all of them are raised together."""
    filled: list[_Part] = []
    problems: list[Problem] = []
    for part in parts:
        try:
            how = own.get(part.name, reading)
            data, left = _read(part.source, part.at, seed, how)
            filled.append(replace(part, data=data, left=left, how=how))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return filled


def _read(source: Source | Sequence[Portion], at: str, seed: int, how: Reading) -> tuple[Dataset, int]:
    """Give the checked examples of one part, and how many rows `limit` has left out of it."""
    from finetune.data.columns import require_clusters
    from finetune.data.mixture import joined
    from finetune.data.sources import EXAMPLE, as_table, read

    if not isinstance(source, Source):
        found = {each.title: _read(each, f"{at}.{number}", seed, how) for number, each in enumerate(source)}
        return joined({name: data for name, (data, _) in found.items()}, at), sum(left for _, left in found.values())
    data = read(source, at, seed)
    left = as_table(data)[EXAMPLE][-1].as_py() + 1 - data.num_rows
    data = how.convert(data, at) if how.convert else data
    how.check(data, at)
    if how.cluster is not None:
        require_clusters(data, how.cluster, at, "task.group")
    return data, left


def _divide(pool: _Part, options: DataOptions, seed: int) -> list[_Part]:
    """The training part of ``pool``, then the parts that were carved from it."""
    from finetune.data.checks import take
    from finetune.data.splits import divide

    rows = divide(pool.read, options.split, seed)
    carved = [
        _Part(name, f"data.split.{name}", pool.source, take(pool.read, chosen), how=pool.how)
        for name, chosen in ((VALIDATION, rows.validation), (TEST, rows.test))
        if len(chosen)
    ]
    return [replace(pool, data=take(pool.read, rows.train)), *carved]


def _splits(parts: Sequence[_Part], inputs: Sequence[str], facts: dict[str, Any]) -> Splits:
    """The finished parts with their facts; rows are numbered within their part from here on."""
    from finetune.data.checks import fingerprint, overlap
    from finetune.data.rows import with_row
    from finetune.data.sources import as_dataset, as_table, with_example

    data = {part.name: part.read for part in parts}
    held = [part for part in parts if part.name not in (TRAIN, VALIDATION) and part.comparable(inputs)]
    others = [part.inputs_as(inputs) for part in held]
    if VALIDATION in data:
        facts["leaks"]["validation_held_out"] = overlap(data[VALIDATION], others, inputs)
    facts["splits"] = {
        part.name: {
            "examples": part.read.num_rows,
            "fingerprint": fingerprint(part.read),
            "source": part.path,
        }
        for part in parts
    }
    numbered = {name: as_dataset(with_example(with_row(as_table(dataset)))) for name, dataset in data.items()}
    return Splits(numbered.pop(TRAIN), numbered.pop(VALIDATION, None), numbered, facts)
