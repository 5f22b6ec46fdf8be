"""Rows that belong together: of one author, one article, one patient."""

from __future__ import annotations

import re
from collections.abc import Sequence

from finetune.init.columns import Column
from finetune.init.names import hints
from finetune.init.understood import Understood

FEWEST = 10
"""Groups from which on errors can be computed by group."""
REPEATED = 0.2
"""Share of rows that have their value in common with another one."""
LARGEST = 0.05
"""Share of all rows that a group has on average at most: what sorts rows into few kinds is no group."""


def group_of(columns: Sequence[Column], found: Understood) -> tuple[str, str] | None:
    """Give the column whose equal values belong together, and why; None where none does."""
    by_name = {column.name: column for column in columns}
    # Where a text is all that is read, rows that repeat it are duplicates.
    several = len(found.inputs) > 1 and not found.made and found.task not in ("multiple-choice", "embedding")
    for name in found.inputs if several else ():
        column = by_name[name]
        if column.kind == "text" and column.words >= 3 and _repeats(column):
            return name, f"the same '{name}' stands in several rows ({column.distinct:,} in {len(column.given):,})"
    free = [column for column in columns if column.name not in found.used and column.missing == 0]
    named = [column for column in free if _may_be(column) and hints(column, "group")]
    coded = [column for column in free if _may_be(column) and column.words <= 1 and _is_code(column)]
    for column in sorted([*named, *coded], key=lambda column: -column.distinct):
        rows = len(column.given)
        why = f"'{column.name}' has {column.distinct:,} values in {rows:,} rows, which may belong together"
        return column.name, why
    return None


def _repeats(column: Column) -> bool:
    rows = len(column.given)
    together = sum(count for count in column.counts.values() if count > 1)
    return column.distinct >= FEWEST and together >= REPEATED * rows and rows / column.distinct <= LARGEST * rows


def _may_be(column: Column) -> bool:
    return column.kind in ("text", "whole") and column.words <= 3 and not column.is_index and _repeats(column)


def _is_code(column: Column) -> bool:
    """Tell whether values are codes such as `doc-0017`."""
    return column.kind == "text" and all(re.search(r"\d", str(value)) for value in column.given[:200])
