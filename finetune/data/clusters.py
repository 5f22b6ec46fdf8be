"""Columns whose values repeat, and so may say which examples belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from finetune.data.checks import cluster_values
from finetune.data.nested import is_nested
from finetune.data.rows import ROW
from finetune.data.sources import EXAMPLE, as_table

if TYPE_CHECKING:
    from datasets import Dataset

ROWS = 200_000
"""Rows of a set that are looked at: their values are all in memory at once."""

SHARE = 0.05
"""Share of rows from which on it counts that they have their value in common with another row."""


@dataclass(frozen=True)
class Repeating:
    """A column whose values repeat."""

    name: str
    values: int
    rows: int
    """Rows that have a value."""
    together: int
    """Those of them whose value another row has too."""
    gaps: int
    """Rows without a value."""
    sides: dict[str, int]
    """By held-out set, how many values it shares with the examples that are learnt from."""
    absent: tuple[str, ...]
    """Sets that lack the column."""


def repeating_columns(tables: Mapping[str, Dataset], used: Set[str], label: str | None) -> list[Repeating]:
    """The columns of the training examples, first in ``tables``, whose values repeat, those with most values first.

    Neither those in ``used``, constants, lists, fractions and truth values, nor what says no more than ``label``. Of
    large sets the first :data:`ROWS` rows are looked at.
    """
    tables = {at: data.select(range(ROWS)) if data.num_rows > ROWS else data for at, data in tables.items()}
    first = next(iter(tables.values()))
    found = [
        _repeating(name, tables, label)
        for name in first.column_names
        if name not in {EXAMPLE, ROW, *used} and _may_name_clusters(as_table(first.select_columns([name]))[name])
    ]
    return sorted(filter(None, found), key=lambda column: -column.values)


def _may_name_clusters(values: pa.ChunkedArray) -> bool:
    kind = values.type
    if pa.types.is_floating(kind):  # whole numbers with gaps are floats to pandas
        return all(value is None or value != value or float(value).is_integer() for value in values.to_pylist())
    bytes_like = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return not (is_nested(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind) or bytes_like)


def _repeating(name: str, tables: Mapping[str, Dataset], label: str | None) -> Repeating | None:
    having = {at: cluster_values(data, name) for at, data in tables.items() if name in data.column_names}
    counts = Counter(value for values in having.values() for value in values if not _is_gap(value))
    rows = sum(counts.values())
    together = sum(count for count in counts.values() if count > 1)
    if len(counts) < 2 or together < SHARE * rows or (label is not None and _copies(having, tables, label)):
        return None
    learnt, *held_out = having
    own = set(having[learnt])
    return Repeating(
        name,
        len(counts),
        rows,
        together,
        sum(map(len, having.values())) - rows,
        {at: len({value for value in having[at] if value in own and not _is_gap(value)}) for at in held_out},
        tuple(at for at in tables if at not in having),
    )


def _is_gap(value: str) -> bool:
    return not value.strip() or value in ("None", "nan")


def _copies(having: Mapping[str, list[str]], tables: Mapping[str, Dataset], label: str) -> bool:
    """Tell whether the label alone decides what stands in the column."""
    pairs = set(_pairs(having, tables, label))
    return len(pairs) == len({said for said, _ in pairs})


def _pairs(having: Mapping[str, list[str]], tables: Mapping[str, Dataset], label: str) -> Iterator[tuple[str, str]]:
    for at, values in having.items():
        if label in tables[at].column_names:
            yield from zip(cluster_values(tables[at], label), values, strict=True)
