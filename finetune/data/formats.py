"""Reads one file into an Arrow table: csv, tsv, jsonl, json and parquet.

Everything in a csv or tsv file is text, except a column whose values are all plain numbers: `12`, `-3.5`, `1e-5`,
with empty cells (null) and `nan` among them. `0012`, `+5`, `NA`, `null`, `true` and dates stay the text they are, so
that no value is changed by a guess. In text columns an empty cell is the empty text.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from finetune.core.errors import InputError, Problem, bad_input
from finetune.data.arrow_types import plain
from finetune.data.encodings import LONE_SURROGATE, NotText, advise, code_point, decode
from finetune.data.nested import holds_objects, nested_array
from finetune.data.options import Source

INTEGER = r"-?(?:0|[1-9][0-9]{0,17})"
"""Whole numbers without leading zeros that fit into 64 bits."""
NUMBER = rf"{INTEGER}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{{1,3}})?|[nN][aA][nN]"

BLOCK = 1 << 26
"""Bytes that the csv reader parses at once; no row can be longer."""

HEADER = 1 << 20
"""Characters in which the header line must end."""


def unknown_encoding(source: Source, at: str) -> InputError:
    """The error for an encoding that Python does not know."""
    return bad_input(f"{at}.encoding", f"there is no text encoding '{source.encoding}'", "for example utf-8 or latin-1")


def read_text(path: Path, source: Source, at: str) -> str:
    """The text of ``path``, which must not be empty."""
    content = path.read_bytes()
    try:
        text = decode(content, source)
    except NotText as error:
        line = content.count(b"\n", 0, error.position) + 1
        raise InputError(Problem(error.found, advise([content], source), f"{at}.path", f"{path}:{line}")) from error
    except LookupError as error:
        raise unknown_encoding(source, at) from error
    if not text or text.isspace():
        raise bad_input(f"{at}.path", f"'{path}' is empty", "name a file with examples, or write it again")
    return text


def read_csv(path: Path, source: Source, at: str) -> pa.Table:
    """A comma-separated file, as texts; values in double quotes may hold commas and line ends."""
    return _read_delimited(path, source, at, delimiter=",", quotes=True)


def read_tsv(path: Path, source: Source, at: str) -> pa.Table:
    """A tab-separated file, as texts; quotes are ordinary characters, and a value holds no tab and no line end."""
    return _read_delimited(path, source, at, delimiter="\t", quotes=False)


def _read_delimited(path: Path, source: Source, at: str, delimiter: str, quotes: bool) -> pa.Table:
    text = read_text(path, source, at)
    names = source.names or _header(text[:HEADER], delimiter, quotes)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise bad_input(f"{at}.path", f"'{path}' has several columns called {', '.join(map(repr, repeated))}")
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(text.encode()),
            pyarrow.csv.ReadOptions(
                column_names=names, skip_rows_after_names=0 if source.names else 1, block_size=BLOCK
            ),
            pyarrow.csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if quotes else False, newlines_in_values=quotes
            ),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        broken = _broken_row(text, len(names), delimiter, quotes) or (1, str(error))
        raise _broken(path, at, *broken, quotes) from error
    # The reader takes a quote that is never closed for a value that reaches to the end of the file.
    if quotes and text.count('"') % 2 and (unclosed := _broken_row(text, len(names), delimiter, quotes)):
        raise _broken(path, at, *unclosed, quotes)
    return table


def _header(text: str, delimiter: str, quotes: bool) -> list[str]:
    """The names in the first line; a column without one gets `column_N`."""
    first = next(row for row in _rows(text, delimiter, quotes) if row)
    return [name.strip() or f"column_{number}" for number, name in enumerate(first, start=1)]


def _rows(text: str, delimiter: str, quotes: bool, strict: bool = False) -> Any:
    """Python's csv reader: slower than Arrow's, but it knows which line it is on."""
    lines = io.StringIO(text, newline="")
    if quotes:
        return csv.reader(lines, delimiter=delimiter, strict=strict)
    return csv.reader(lines, delimiter=delimiter, strict=strict, quoting=csv.QUOTE_NONE)


def _broken_row(text: str, fields: int, delimiter: str, quotes: bool) -> tuple[int, str] | None:
    """Line and description of the first row that cannot be read: slow, so only asked when something is wrong."""
    rows = _rows(text, delimiter, quotes, strict=True)
    limit = csv.field_size_limit(max(len(text), 1))
    try:
        line = 1
        for row in rows:
            if row and len(row) != fields:
                return line, f"{len(row)} values, where {fields} are expected"
            line = rows.line_num + 1
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            return line, "a double quote is opened and never closed"
    finally:
        csv.field_size_limit(limit)
    return None


def _broken(path: Path, at: str, line: int, found: str, quotes: bool) -> InputError:
    advice = "values that hold the separator go in double quotes, and a double quote in them is doubled"
    if not quotes:
        advice = "a value cannot hold a tab or a line end here; write such a table as csv or jsonl"
    return InputError(Problem(found, advice, f"{at}.path", f"{path}:{line}"))


def recognise(table: pa.Table) -> pa.Table:
    """``table``, in which all is text, with numbers in the columns that have nothing else."""
    return pa.table({name: _recognise(table[name]) for name in table.column_names})


def _recognise(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of text as numbers, when every value that is not empty is a plain number."""
    # A glance at the start saves the scan over columns of prose.
    for part in (column.slice(0, 100), column):
        given = pc.filter(part, pc.not_equal(part, ""))
        if not pc.all(pc.match_substring_regex(given, f"^(?:{NUMBER})$")).as_py():
            return column
    if not len(given):
        return column
    whole = pc.all(pc.match_substring_regex(given, f"^{INTEGER}$")).as_py()
    values = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    return values.cast(pa.int64() if whole else pa.float64())


def read_jsonl(path: Path, source: Source, at: str) -> pa.Table:
    """One JSON object a line; blank lines are passed over."""
    rows, lines, broken = [], [], []
    for line, text in enumerate(read_text(path, source, at).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            if isinstance(row, dict):
                rows.append(row)
                lines.append(line)
            else:
                broken.append((line, f"{_kind(row)}, where an object in {{braces}} is expected"))
        except json.JSONDecodeError as error:
            broken.append((line, _invalid(error)))
    if broken:
        line, found = broken[0]
        more = f" ({len(broken) - 1} more lines are broken too)" if broken[1:] else ""
        advice = "every line is one JSON object"
        if _is_json(path, source, at):
            advice = "the file is one JSON value: set `format: json`"
        raise InputError(Problem(found + more, advice, f"{at}.path", f"{path}:{line}"))
    return _from_rows(rows, [f"line {line}" for line in lines], path, at)


def _is_json(path: Path, source: Source, at: str) -> bool:
    try:
        json.loads(read_text(path, source, at))
    except json.JSONDecodeError:
        return False
    return True


def _invalid(error: json.JSONDecodeError) -> str:
    return f"not valid JSON: {error.msg.removesuffix(' at')} at character {error.colno}"


def read_json(path: Path, source: Source, at: str) -> pa.Table:
    """A list of objects, or an object in which exactly one value is such a list (as in `{"data": [...]}`)."""
    try:
        content = json.loads(read_text(path, source, at))
    except json.JSONDecodeError as error:
        found = _invalid(error)
        lines = error.msg == "Extra data" and error.lineno == 2 and error.colno == 1
        advice = "if every line is an object of its own, set `format: jsonl`" if lines else ""
        raise InputError(Problem(found, advice, f"{at}.path", f"{path}:{error.lineno}")) from error
    lists = [content] if isinstance(content, list) else []
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
    if len(lists) != 1 or not all(isinstance(row, dict) for row in lists[0]):
        advice = 'expected [{...}, {...}], or {"data": [{...}, {...}]} with one list'
        raise bad_input(f"{at}.path", f"'{path}' is not one list of objects", advice)
    return _from_rows(lists[0], [f"entry {number + 1}" for number in range(len(lists[0]))], path, at)


def _from_rows(rows: Sequence[dict[str, Any]], places: Sequence[str], path: Path, at: str) -> pa.Table:
    """A table of the rows' keys, in order of first appearance; a key that a row lacks is null there."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = _to_array(values)
        except UnicodeEncodeError as error:
            raise _surrogate(name, rows, places, path, at) from error
        except (ValueError, TypeError, OverflowError) as error:
            found = f"column '{name}' of '{path}' {_mixture(values, places) or f'cannot be read: {error}'}"
            raise bad_input(f"{at}.path", found, "the values of a column must be of one kind") from error
        if LONE_SURROGATE.search(name):
            raise _surrogate(name, rows, places, path, at)
    return pa.table(columns)


def _to_array(values: list[Any]) -> pa.Array:
    if holds_objects(values):
        return nested_array(values)
    try:
        return pa.array(values)
    except pa.ArrowTypeError:
        # NaN is a number to Arrow; in a column of text it can only mean that there is no value.
        without = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        return pa.array(without)


def _surrogate(name: str, rows: Iterable[dict[str, Any]], places: Iterable[str], path: Path, at: str) -> InputError:
    """The error for the first text with half of a surrogate pair, which JSON can write and which no text can hold."""
    texts = (json.dumps({name: row[name]}, ensure_ascii=False) if name in row else "" for row in rows)
    halves = ((LONE_SURROGATE.search(text), place) for text, place in zip(texts, places, strict=True))
    half, place = next((half[0], place) for half, place in halves if half)
    found = f"column '{_escaped(name)}' has {code_point(half)} in {place}, half of a surrogate pair and no character"
    advice = "a text was cut within a character, such as an emoji: write the whole character, or take the half out"
    where = f"{path}:{place.removeprefix('line ')}" if place.startswith("line ") else str(path)
    return InputError(Problem(found, advice, f"{at}.path", where))


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _mixture(values: Iterable[Any], places: Iterable[str]) -> str | None:
    """``holds text (line 1) and a number (line 7)``, when that is what is wrong."""
    first: dict[str, str] = {}
    for value, place in zip(values, places, strict=True):
        if value is not None:
            first.setdefault(_kind(value), place)
    return "holds " + " and ".join(f"{k} ({place})" for k, place in first.items()) if len(first) > 1 else None


def _kind(value: Any) -> str:
    words = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return words.get(type(value), "null")


def read_parquet(path: Path, source: Source, at: str) -> pa.Table:
    """A parquet file; categories, views and other ways to store the same values become plain columns."""
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise bad_input(f"{at}.path", f"'{path}' is not a readable parquet file: {reason}") from error
    return plain(table)
