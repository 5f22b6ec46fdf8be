"""Mixtures: training examples out of several sources, each learnt from as often as its weight says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from finetune.core.errors import bad_input
from finetune.data.draws import MIXTURE, random_keys
from finetune.data.rows import PORTION, with_row
from finetune.data.sources import EXAMPLE, as_dataset, as_table, with_example
from finetune.data.spool import Mixed, spooled, taken, unified

if TYPE_CHECKING:
    from datasets import Dataset


def joined(portions: Mapping[str, Dataset], at: str) -> Dataset:
    """The examples of all ``portions``, one after the other, with :data:`PORTION`, and numbered anew.

    A column that one of them lacks is null there. Raises InputError at ``at``, where one has a column of that name, or
    where columns of one name hold different kinds of values.
    """
    tables: list[pa.Table] = []
    for name, data in portions.items():
        table = with_row(as_table(data)).drop_columns([EXAMPLE])
        if PORTION in table.column_names:
            found = f"'{name}' has a column '{PORTION}', which says of a mixture which source an example is from"
            raise bad_input(at, found, f"give it another name in the file, as with `columns: {{other: {PORTION}}}`")
        names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(table.num_rows, np.int32)), pa.array([name]))
        tables.append(table.append_column(PORTION, names.cast(pa.string())))
    try:
        return as_dataset(with_example(spooled(unified(tables))))
    except Mixed as error:
        kinds = ", ".join(kind for kind, _ in error.kinds)
        found = f"column '{error.column}' is of several kinds in its sources: {kinds}"
        raise bad_input(at, found, "give it one kind, or another name where it means something else") from error


def weighted(data: Dataset, weights: Mapping[str, float], seed: int) -> tuple[Dataset, dict[str, int], int]:
    """The examples of a mixture, each as often as its portion's weight says; how many of each portion that makes; and
    how many different ones are among them.

    Of a weight of 2.5 every example is there twice, and half of them, drawn by ``seed``, a third time.
    """
    names = np.asarray(as_table(data)[PORTION].to_pylist(), object)
    times, counts = np.zeros(len(names), np.int64), {}
    for number, (name, weight) in enumerate(weights.items()):
        rows = np.flatnonzero(names == name)
        whole = int(weight)
        extra = round((weight - whole) * len(rows))
        times[rows] = whole
        order = np.argsort(random_keys(len(rows), seed, MIXTURE + number), kind="stable")
        times[rows[order[:extra]]] += 1
        counts[name] = int(times[rows].sum())
    rows = np.repeat(np.arange(len(names)), times)
    return as_dataset(taken(as_table(data), rows)), counts, int((times > 0).sum())


def codes(data: Dataset, names: Sequence[str]) -> np.ndarray:
    """The place of each example's portion among ``names``: (examples,) int64."""
    places = {name: place for place, name in enumerate(names)}
    return np.asarray([places[name] for name in as_table(data)[PORTION].to_pylist()], np.int64)
