"""Reads csv and tsv files.

Everything in them is text, except a column whose values are all plain numbers: `12`, `-3.5`, `1e-5`, with empty cells
(null) and `nan` among them. `0012`, `+5`, `NA`, `null`, `true` and dates stay the text they are, so that no value is
changed by a guess. In text columns an empty cell is the empty text.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core.errors import InputError, Problem, bad_input
from finetune.data.encodings import Written
from finetune.data.formats.base import FORMATS, Format, text_blocks

if TYPE_CHECKING:
    import pyarrow as pa

INTEGER = r"-?(?:0|[1-9][0-9]{0,17})"
"""Whole numbers without leading zeros that fit into 64 bits."""
NUMBER = rf"{INTEGER}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{{1,3}})?|[nN][aA][nN]"

BLOCK = 1 << 26
"""Bytes that the csv reader parses at once; no row can be longer."""

HEADER = 1 << 20
"""Characters in which the header line must end."""


@FORMATS.register
class Csv(Format):
    """A comma-separated file; values in double quotes may hold commas and line ends."""

    name: ClassVar[str] = "csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    delimited: ClassVar[bool] = True

    @classmethod
    def blocks(cls, path: Path, source: Written, at: str) -> Iterator[pa.Table]:
        return _read_delimited(path, source, at, delimiter=",", quotes=True)


@FORMATS.register
class Tsv(Format):
    """A tab-separated file; quotes are ordinary characters, and a value holds no tab and no line end."""

    name: ClassVar[str] = "tsv"
    suffixes: ClassVar[tuple[str, ...]] = (".tsv",)
    delimited: ClassVar[bool] = True

    @classmethod
    def blocks(cls, path: Path, source: Written, at: str) -> Iterator[pa.Table]:
        return _read_delimited(path, source, at, delimiter="\t", quotes=False)


def _read_delimited(path: Path, source: Written, at: str, delimiter: str, quotes: bool) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.csv

    text = _AsUtf8(text_blocks(path, source, at))
    names, above = source.names or [], 0
    if not names:
        names, above = _header(text.begin(HEADER), delimiter, quotes)
    if not names:
        advice = "name them there, or in `names`, with which every line is an example"
        raise bad_input(f"{at}.path", f"no line at the beginning of '{path}' names columns", advice)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise bad_input(f"{at}.path", f"'{path}' has several columns called {', '.join(map(repr, repeated))}")
    try:
        reader = pyarrow.csv.open_csv(
            pa.PythonFile(text, mode="r"),
            pyarrow.csv.ReadOptions(
                column_names=names, skip_rows=above, skip_rows_after_names=0 if source.names else 1, block_size=BLOCK
            ),
            pyarrow.csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if quotes else False, newlines_in_values=quotes
            ),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
        yield reader.schema.empty_table()
        for rows in reader:
            yield pa.Table.from_batches([rows])
    except pa.ArrowInvalid as error:
        broken = _broken_row(path, source, at, len(names), delimiter, quotes, above) or (1, str(error))
        raise _broken(path, at, *broken, quotes) from error
    # The reader takes a quote that is never closed for a value that reaches to the end of the file.
    if quotes and text.quotes % 2 and (unclosed := _broken_row(path, source, at, len(names), delimiter, quotes, above)):
        raise _broken(path, at, *unclosed, quotes)


class _AsUtf8(io.RawIOBase):
    """A file of texts in UTF-8, which counts the double quotes that were read from it."""

    def __init__(self, blocks: Iterator[str]):
        self._blocks, self._left, self.quotes = blocks, b"", 0

    def begin(self, characters: int) -> str:
        """Give the first ``characters``, which are read again."""
        first = next(self._blocks)
        self._left += first.encode()
        return first[:characters]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._left or size < 0:
            block = next(self._blocks, None)
            if block is None:
                break
            self._left += block.encode()
        size = len(self._left) if size < 0 else size
        given, self._left = self._left[:size], self._left[size:]
        self.quotes += given.count(b'"')
        return given


def _header(text: str, delimiter: str, quotes: bool) -> tuple[list[str], int]:
    """The names in the first line that has any, where a column without one gets `column_N`; and how many lines stand
    above it, which are blank or have separators alone, as a spreadsheet's empty rows do. No names: there is none."""
    rows, above = _rows(io.StringIO(text, newline=""), delimiter, quotes), 0
    for row in rows:
        if any(map(str.strip, row)):
            return [name.strip() or f"column_{number}" for number, name in enumerate(row, start=1)], above
        above = rows.line_num
    return [], above


def _rows(lines: Iterable[str], delimiter: str, quotes: bool, strict: bool = False) -> Any:
    """Read rows by Python's csv reader: slower than Arrow's, but it knows which line it is on."""
    if quotes:
        return csv.reader(lines, delimiter=delimiter, strict=strict)
    return csv.reader(lines, delimiter=delimiter, strict=strict, quoting=csv.QUOTE_NONE)


def _broken_row(
    path: Path, source: Written, at: str, fields: int, delimiter: str, quotes: bool, above: int
) -> tuple[int, str] | None:
    """Find line and description of the first row that cannot be read, but for the lines ``above`` the header: slow, so
    only when something is wrong."""
    lines = chain.from_iterable(io.StringIO(text, newline="") for text in text_blocks(path, source, at))
    rows = _rows(lines, delimiter, quotes, strict=True)
    limit = csv.field_size_limit(sys.maxsize)
    try:
        line = 1
        for row in rows:
            if row and line > above and len(row) != fields:
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
    import pyarrow as pa

    return pa.table({name: _recognise(table[name]) for name in table.column_names})


def _recognise(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of text as numbers, when every value that is not empty is a plain number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    any_given, whole = False, True
    # A glance at the start saves the scan over columns of prose.
    for part in (column.slice(0, 100), *(pa.chunked_array([chunk]) for chunk in column.chunks)):
        given = pc.filter(part, pc.not_equal(part, ""))
        if not pc.all(pc.match_substring_regex(given, f"^(?:{NUMBER})$")).as_py():
            return column
        any_given = any_given or len(given) > 0
        whole = whole and bool(pc.all(pc.match_substring_regex(given, f"^{INTEGER}$")).as_py())
    if not any_given:
        return column
    values = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    return values.cast(pa.int64() if whole else pa.float64())
