"""Requirements that tasks have of a column, with errors that name the option, the source and the rows (from 1)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetune.core.errors import bad_input, did_you_mean
from finetune.data.nested import is_nested
from finetune.data.rows import ROW
from finetune.data.sources import EXAMPLE, as_table

if TYPE_CHECKING:
    from datasets import Dataset

ROWS = 1 << 16
"""Rows that are looked at together."""

OURS = "finetune:"
"""Begins the names of columns that no file has."""

SHOWN_ROWS = 5
"""How many row numbers an error message lists."""


def require_column(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse a ``dataset`` (of the recipe path ``at``) that lacks ``column``, which ``option`` names."""
    if column not in dataset.column_names:
        known = [name for name in dataset.column_names if name not in (EXAMPLE, ROW) and not name.startswith(OURS)]
        advice = _separated(known[0]) if len(known) == 1 else ""
        raise bad_input(option, f"{at} has no column '{column}'", advice or did_you_mean(column, known))


def _separated(header: str) -> str:
    """Advise on a table of one column whose name is a whole header line; empty where it is not one."""
    separator = max(";|\t,", key=header.count)
    if separator not in header:
        return ""
    named = "tabs" if separator == "\t" else f"'{separator}'"
    return f"its only column is called '{header}': values separated by {named}; write it with commas, as .csv"


def require_text(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse a column that is missing, is not text, has gaps, or is nothing but empty texts."""
    table = _table(dataset, column, at, option)
    values = table[column]
    kind = values.type
    if not _is_text(kind) and not pa.types.is_null(kind):
        raise bad_input(
            option, f"column '{column}' of {at} holds {_what(values)}, not text", _as_text(values, column, at)
        )
    _refuse_gaps(table, values, f"column '{column}' of {at} has no text", option)
    if all(pc.all(pc.equal(pc.utf8_trim_whitespace(chunk), "")).as_py() for chunk in _parts(values)):
        raise bad_input(option, f"every text in column '{column}' of {at} is empty")


def require_words(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse what :func:`require_text` does, and empty texts."""
    require_text(dataset, column, at, option)
    refuse_empty(dataset, column, at, option)


def refuse_empty(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse a column of texts, one of which is empty or nothing but white space."""
    table = _table(dataset, column, at, option)
    empty = _each(table[column], lambda part: pc.equal(pc.utf8_trim_whitespace(part), ""))
    _refuse_rows(table, empty, f"column '{column}' of {at} has an empty text", option)


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
        advice = "labels are text, whole numbers, or true and false; write classes as such in the file"
        raise bad_input(option, found, advice)
    if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        found, advice = f"column '{column}' of {at} holds {_what(values)}", _as_text(values, column, at)
        raise bad_input(option, found, f"labels are text or whole numbers; {advice}")
    if _is_text(kind):

        def is_(text: str) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
            return lambda part: pc.equal(pc.utf8_lower(pc.utf8_trim_whitespace(part)), text)

        _refuse_rows(table, _each(values, is_("")), f"column '{column}' of {at} has an empty label", option)
        _refuse_rows(table, _each(values, is_("nan")), f"column '{column}' of {at} has the label 'nan'", option)


def require_choices(dataset: Dataset, column: str, choices: Sequence[str], at: str, option: str) -> None:
    """Refuse labels, which :func:`require_labels` has passed, other than the ``choices``."""
    advice = f"correct the file, take those rows out of it, or name the label in {option}"
    _refuse_labels(
        dataset, column, lambda label: label in choices, f"is none of {', '.join(choices)}", at, option, advice
    )


def require_whole_numbers(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse labels, which :func:`require_labels` has passed, that are no whole numbers."""
    advice = f"write the labels in {option}, from the lowest to the highest"
    _refuse_labels(dataset, column, _is_whole, "is no whole number", at, option, advice)


def _is_whole(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _refuse_labels(
    dataset: Dataset, column: str, good: Callable[[str], bool], found: str, at: str, option: str, advice: str
) -> None:
    table = _table(dataset, column, at, option)
    values = table[column]
    refused = [label for label in values.unique().to_pylist() if not good(str(label))]
    if refused:
        where = pc.is_in(values, value_set=pa.array(refused[:1], values.type))
        _refuse_rows(table, where, f"label '{refused[0]}' {found}: in column '{column}' of {at}", option, advice)


def require_numbers(
    dataset: Dataset, column: str, at: str, option: str, low: float = -math.inf, high: float = math.inf
) -> None:
    """Refuse a column that is missing, has gaps, or holds else than finite numbers from ``low`` to ``high``."""
    table = _table(dataset, column, at, option)
    values = table[column]
    _refuse_gaps(table, values, f"column '{column}' of {at} has no number", option)
    kind = values.type
    if _is_text(kind):
        texts = [not _reads_as_number(text) for text in values.to_pylist()]
        if any(texts):
            first = values[texts.index(True)].as_py()
            found = f"column '{column}' of {at} holds text that is no number, such as '{first:.40}',"
            advice = _written_elsewhere(first) or "complete the file, or take those rows out of it"
            _refuse_rows(table, pa.chunked_array([texts], pa.bool_()), found, option, advice)
        row = _numbers(table, np.array([0]))[0] + 1
        found = f"column '{column}' of {at} holds numbers as text, such as '{values[0]}' in row {row}"
        raise bad_input(option, found, "write them in the file as numbers, without quotes")
    if pa.types.is_boolean(kind):
        found = f"column '{column}' of {at} holds true and false, which are labels and no numbers"
        raise bad_input(option, found, "use task type classification, or name another column")
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise bad_input(option, f"column '{column}' of {at} holds {_what(values)}", "name a column of numbers")
    if pa.types.is_floating(kind):
        endless = _each(values, lambda part: pc.invert(pc.is_finite(part)))
        _refuse_rows(table, endless, f"column '{column}' of {at} has an infinite number", option)
    outside = _each(values, lambda part: pc.or_(pc.less(part, low), pc.greater(part, high)))
    _refuse_rows(table, outside, f"column '{column}' of {at} has a number outside {low:g} to {high:g}", option)


def numbers_of(dataset: Dataset, column: str) -> np.ndarray:
    """Read a column that :func:`require_numbers` has let pass: (rows,) float64. What was stored with fewer bits is the
    shortest decimal number that it stands for, 3.8 and not 3.799999952316284."""
    values = as_table(dataset.select_columns([column]))[column]
    if pa.types.is_float32(values.type) or pa.types.is_float16(values.type):
        return values.to_numpy().astype(str).astype(np.float64)
    return np.asarray(values.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _written_elsewhere(text: str) -> str:
    """Advise on a number as some people write it; empty for what is none."""
    if re.fullmatch(r"\s*[-+]?[\d.' ]*\d,\d+\s*", text):
        return "write numbers with a decimal point and nothing between thousands: 1.5, and 1500"
    return "write the number alone, without a unit or a sign for one" if re.match(r"\s*[^\w]?\d", text) else ""


def refuse_missing(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse a column that is missing or has gaps."""
    table = _table(dataset, column, at, option)
    _refuse_gaps(table, table[column], f"column '{column}' of {at} has no value", option)


def require_clusters(dataset: Dataset, column: str, at: str, option: str) -> None:
    """Refuse a column that is missing, has gaps (nulls, NaN, empty texts), or holds lists or objects."""
    refuse_missing(dataset, column, at, option)
    table = _table(dataset, column, at, option)
    kind = table[column].type
    if is_nested(kind):
        raise bad_input(option, f"column '{column}' of {at} holds {kind}", "name a column of plain values")
    if _is_text(kind):
        empty = _each(table[column], lambda part: pc.equal(pc.utf8_trim_whitespace(part), ""))
        _refuse_rows(table, empty, f"column '{column}' of {at} has an empty value", option)


def _table(dataset: Dataset, column: str, at: str, option: str) -> pa.Table:
    require_column(dataset, column, at, option)
    return as_table(dataset.select_columns([name for name in {column, EXAMPLE, ROW} if name in dataset.column_names]))


def _what(values: pa.ChunkedArray) -> str:
    """Say in words what a column holds."""
    kind, given = values.type, values.drop_null()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return f"numbers, such as {given[0]}" if len(given) else "numbers"
    if _is_bytes(kind):
        return "bytes"
    return str(kind)


def _as_text(values: pa.ChunkedArray, column: str, at: str) -> str:
    """Advise how to make text of a column, where that gives what the file says."""
    if is_nested(values.type):
        return "name a column of plain values; lists and objects have to be written out in the file"
    if _is_bytes(values.type):
        try:
            b"\n".join(values.drop_null().to_pylist()).decode()
        except UnicodeDecodeError:
            return "name another column; these bytes are not text in UTF-8"
    advice = f"if they are meant as text, make text of them: `{column}: '{{{column}}}'` in {at}.columns"
    return f"{advice} (in the braces, the column's name in the file)"


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _parts(values: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Some thousand values at a time, so that what is made of them is small."""
    for start in range(0, len(values), ROWS):
        yield values.slice(start, ROWS)


def _each(values: pa.ChunkedArray, test: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> pa.ChunkedArray:
    """Which of ``values`` pass the ``test``, of some at a time."""
    found = [chunk for part in _parts(values) for chunk in test(part).chunks]
    return pa.chunked_array(found, pa.bool_())


def _refuse_gaps(table: pa.Table, values: pa.ChunkedArray, found: str, option: str) -> None:
    if pa.types.is_floating(values.type):
        nan = pc.fill_null(pc.is_nan(values), False)
        _refuse_rows(table, nan, f"{found} but NaN", option)
    _refuse_rows(table, pc.is_null(values), found, option)


def _numbers(table: pa.Table, rows: np.ndarray) -> np.ndarray:
    """Give the numbers that ``rows`` have in their source, from 0."""
    known = next((name for name in (ROW, EXAMPLE) if name in table.column_names), None)
    return rows if known is None else table[known].to_numpy()[rows]


def _refuse_rows(
    table: pa.Table,
    refused: pa.ChunkedArray,
    found: str,
    option: str,
    advice: str = "complete the file, or take those rows out of it",
) -> None:
    where = np.flatnonzero(refused.to_numpy())
    if not len(where):
        return
    numbers = _numbers(table, where)
    shown = ", ".join(str(number + 1) for number in numbers[:SHOWN_ROWS])
    more = f" and {len(where) - SHOWN_ROWS} more" if len(where) > SHOWN_ROWS else ""
    rows = "row" if len(where) == 1 else "rows"
    raise bad_input(option, f"{found} in {rows} {shown}{more}", advice)
