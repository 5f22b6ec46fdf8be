"""New columns from old ones: `columns: {text: review, prompt: "Headline of:\\n{body:.800}"}`."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping, Sequence

import pyarrow as pa

from finetune.core.errors import InputError, bad_input, did_you_mean
from finetune.data.nested import is_nested

Piece = tuple[str, str | None, str]
"""Literal text, then a column (None: nothing follows) and the format that its text gets."""

WIDEST = 1_000_000
"""Characters up to which a template may cut or fill a text."""


def add_columns(
    table: pa.Table,
    columns: Mapping[str, str],
    at: str,
    written: pa.Table | None = None,
    encoding: str = "utf-8",
    first: int = 0,
) -> pa.Table:
    """``table`` with the new columns; each is made from the table's own columns, never from another new one.

    ``written`` has the same columns as texts, where those are what the file has: a template shows `2.50` so, and not
    as the number that was recognised in it. Bytes are shown as the text that they are in ``encoding``.

    ``first`` is the number of the table's first row, from 0.

    Raises:
        InputError: with every problem, at ``{at}.columns.NAME``.
    """
    made, problems = {}, []
    for name, recipe in columns.items():
        try:
            made[name] = _column(table, recipe, f"{at}.columns.{name}", written, encoding, first)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    for name, column in made.items():
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    return table


def sources_of(recipe: str, known: list[str]) -> set[str]:
    """The columns that a mapping's right-hand side reads, when it is well formed."""
    if recipe in known:
        return {recipe}
    try:
        return {column for _, column, _ in _parse(recipe, known, "") if column is not None}
    except InputError:
        return set()


def _column(
    table: pa.Table, recipe: str, path: str, written: pa.Table | None, encoding: str, first: int
) -> pa.ChunkedArray:
    known = table.column_names
    if recipe in known:
        return table[recipe]
    pieces = _parse(recipe, known, path)
    used = {column for _, column, _ in pieces if column is not None}
    shown = {column: _shown(table, column, path, written, encoding, first) for column in used}
    return pa.chunked_array([[_fill(pieces, shown, row) for row in range(table.num_rows)]], pa.string())


def _shown(
    table: pa.Table, column: str, path: str, written: pa.Table | None, encoding: str, first: int
) -> Sequence[str | None]:
    """Turn each value of a column into the text that a template shows; None where there is no value."""
    kind, values = table[column].type, table[column].to_pylist()
    if is_nested(kind):
        raise bad_input(path, f"column '{column}' holds lists or objects, which a template cannot show")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [
            None if value is None else _decoded(value, column, row, path, encoding)
            for row, value in enumerate(values, first)
        ]
    gaps = [value is None or (isinstance(value, float) and math.isnan(value)) for value in values]
    texts = values if written is None else written[column].to_pylist()
    return [None if gap else str(text) for gap, text in zip(gaps, texts, strict=True)]


def _decoded(value: bytes, column: str, row: int, path: str, encoding: str) -> str:
    try:
        return value.decode(encoding)
    except UnicodeDecodeError as error:
        found = f"column '{column}' holds bytes, and those in row {row + 1} are not text in {encoding}"
        raise bad_input(path, found, "a template shows texts and numbers; name another column") from error


def _parse(template: str, known: list[str], path: str) -> list[Piece]:
    """The pieces of a template. Only whole columns can be named: no attribute, no index, no conversion."""
    if "{" not in template and "}" not in template:
        raise bad_input(path, f"there is no column '{template}'", did_you_mean(template, known))
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        advice = "braces that are meant as text are doubled: {{ and }}"
        raise bad_input(path, f"the template '{template}' is not well formed: {error}", advice) from error
    pieces: list[Piece] = []
    for literal, column, spec, conversion in parsed:
        if column is not None and column not in known:
            raise bad_input(path, f"there is no column '{column}' for the template", did_you_mean(column, known))
        if conversion or "{" in (spec or ""):
            advice = "write {column} or {column:.800}"
            raise bad_input(path, f"'{column}' has more than a format in the template", advice)
        if any(int(number) > WIDEST for number in re.findall(r"\d{1,9}", spec or "")):
            raise bad_input(path, f"'{spec}' asks for more than {WIDEST:,} characters", "write a smaller number")
        try:
            format("", spec or "")
        except ValueError as error:
            advice = "the format is one for text, such as :.800 for the first 800 characters"
            raise bad_input(path, f"'{spec}' is not a format for text: {error}", advice) from error
        pieces.append((literal, column, spec or ""))
    return pieces


def _fill(pieces: list[Piece], columns: Mapping[str, Sequence[str | None]], row: int) -> str | None:
    """The text of one row; None when a value it needs is missing, so that the gap stays visible."""
    parts = []
    for literal, column, spec in pieces:
        parts.append(literal)
        if column is not None:
            text = columns[column][row]
            if text is None:
                return None
            parts.append(format(text, spec))
    return "".join(parts)
