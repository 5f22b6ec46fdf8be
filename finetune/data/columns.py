"""What tasks require of a column, with errors that name the option, the source and the rows (counted from 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetune.data.nested import is_nested
from finetune.data.sources import EXAMPLE, as_table
from finetune.errors import bad_input, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset

SHOWN_ROWS = 5
"""How many row numbers an error message lists."""


def require_column(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse a ``dataset`` (of the recipe path ``at``) that lacks ``column``, which ``option`` names."""
    if column not in dataset.column_names:
        known = [name for name in dataset.column_names if name != EXAMPLE]
        raise bad_input(option, f"{at} has no column '{column}'", did_you_mean(column, known))


def require_text(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse a column that is missing, is not text, has gaps, or is nothing but empty texts."""
    table = _table(dataset, column, at, option)
    values = table[column]
    kind = values.type
    if not _is_text(kind) and not pa.types.is_null(kind):
        numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        what = f"numbers, such as {values.drop_null()[0]}," if numbers and len(values.drop_null()) else f"{kind},"
        advice = f"if they are meant as text, make a text column of them: `columns: {{{column}_text: '{{{column}}}'}}`"
        raise bad_input(option, f"column '{column}' of {at} holds {what} not text", advice)
    _refuse_gaps(table, values, f"column '{column}' of {at} has no text", option)
    if pc.all(pc.equal(pc.utf8_trim_whitespace(values), "")).as_py():
        raise bad_input(option, f"every text in column '{column}' of {at} is empty")


def require_labels(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse a column that is missing, has gaps, or holds something else than text, whole numbers or true/false.

    Gaps are nulls, NaN, empty texts, and the text ``nan`` in any case, which is what a missing number looks like
    once it has been written as text.
    """
    table = _table(dataset, column, at, option)
    values = table[column]
    _refuse_gaps(table, values, f"column '{column}' of {at} has no label", option)
    kind = values.type
    if pa.types.is_floating(kind):
        found = f"column '{column}' of {at} holds decimal numbers, such as {values[0]}"
        raise bad_input(option, found, "labels are text, whole numbers, or true and false")
    if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise bad_input(option, f"column '{column}' of {at} holds {kind}", "labels are text or whole numbers")
    if _is_text(kind):
        trimmed = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        _refuse_rows(table, pc.equal(trimmed, ""), f"column '{column}' of {at} has an empty label", option)
        _refuse_rows(table, pc.equal(trimmed, "nan"), f"column '{column}' of {at} has the label 'nan'", option)


def refuse_missing(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse a column that is missing or has gaps."""
    table = _table(dataset, column, at, option)
    _refuse_gaps(table, table[column], f"column '{column}' of {at} has no value", option)


def require_groups(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse a column that is missing, has gaps (nulls, NaN, empty texts), or holds lists or objects."""
    refuse_missing(dataset, column, at, option)
    table = _table(dataset, column, at, option)
    kind = table[column].type
    if is_nested(kind):
        raise bad_input(option, f"column '{column}' of {at} holds {kind}", "name a column of plain values")
    if _is_text(kind):
        empty = pc.equal(pc.utf8_trim_whitespace(table[column]), "")
        _refuse_rows(table, empty, f"column '{column}' of {at} has an empty value", option)


def _table(dataset: Dataset, column: str, at: str, option: str) -> pa.Table:
    require_column(dataset, column, at, option)
    return as_table(dataset.select_columns([name for name in {column, EXAMPLE} if name in dataset.column_names]))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _refuse_gaps(table: pa.Table, values: pa.ChunkedArray, found: str, option: str) -> None:
    if pa.types.is_floating(values.type):
        nan = pc.fill_null(pc.is_nan(values), False)
        _refuse_rows(table, nan, f"{found} but NaN", option)
    _refuse_rows(table, pc.is_null(values), found, option)


def _refuse_rows(table: pa.Table, refused: pa.ChunkedArray, found: str, option: str) -> None:
    where = np.flatnonzero(refused.to_numpy())
    if not len(where):
        return
    numbers = table[EXAMPLE].to_numpy()[where] if EXAMPLE in table.column_names else where
    shown = ", ".join(str(number + 1) for number in numbers[:SHOWN_ROWS])
    more = f" and {len(where) - SHOWN_ROWS} more" if len(where) > SHOWN_ROWS else ""
    rows = "row" if len(where) == 1 else "rows"
    raise bad_input(option, f"{found} in {rows} {shown}{more}", "complete the file, or take those rows out of it")
