"""Reads one table of an SQLite database, which is opened for reading only. A recipe names a table, and no query."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core.errors import InputError, Problem, bad_input, did_you_mean, first_line
from finetune.data.encodings import Written
from finetune.data.formats.base import FORMATS, Format

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1 << 13
"""Rows that are read at once."""

WAL_BYTE, WAL = 19, b"\2"
"""A byte of a database's head, and what it is where changes are first written into a file beside it."""

KINDS = {int: "a number", float: "a number", str: "text", bytes: "bytes"}


@FORMATS.register
class Sqlite(Format):
    """One table of an SQLite database, in the order of its row ids.

    Values are what the database holds: whole and other numbers, text, bytes and null. A column that holds several kinds
    of them is refused.
    """

    name: ClassVar[str] = "sqlite"
    suffixes: ClassVar[tuple[str, ...]] = (".db", ".sqlite", ".sqlite3")
    binary: ClassVar[bytes] = b"SQLite format 3\0"
    prefix: ClassVar[str] = "sqlite:"
    parts: ClassVar[str] = "table"

    @classmethod
    def blocks(cls, path: Path, source: Written, at: str) -> Iterator[pa.Table]:
        import pyarrow as pa

        table, numbers = "", count(1)
        try:
            with closing(_opened(path, source, at)) as database:
                table = _table(database, path, source, at)
                # An index that has all columns would otherwise be read in its place, and in its order.
                found = database.execute(f"SELECT * FROM {_quoted(table)} NOT INDEXED")
                names = [column[0] for column in found.description]
                yield pa.table({name: [] for name in names})
                numbered = zip(found, numbers)  # noqa: B905  a row has its number after it could be read
                while batch := list(islice(numbered, ROWS)):
                    columns = zip(*(row for row, _ in batch), strict=True)
                    places = [f"row {number:,}" for _, number in batch]
                    where = f"{path}#{table}"
                    yield pa.table(
                        [_column(*each, places, where, at) for each in zip(names, columns, strict=True)], names
                    )
        except UnicodeDecodeError as error:
            advice = "correct it, or set `encoding_errors: replace`"
            raise InputError(
                Problem("holds text that is not UTF-8", advice, f"{at}.path", f"{path}#{table}:{next(numbers)}")
            ) from error
        except sqlite3.Error as error:
            wrong = f"'{path}' is not a readable SQLite database: {first_line(error)}"
            raise bad_input(f"{at}.path", wrong, "copy it again while no program has it open") from error


def _opened(path: Path, source: Written, at: str) -> sqlite3.Connection:
    """Open a database so that nothing is written, not even beside it."""
    with open(path, "rb") as file:
        header = file.read(WAL_BYTE + 1)
    options = "mode=ro"
    if header[WAL_BYTE:] == WAL:
        beside = path.with_name(f"{path.name}-wal")
        if beside.exists() and beside.stat().st_size:
            advice = "close the program that writes it, or run `PRAGMA wal_checkpoint(TRUNCATE)` there"
            raise bad_input(f"{at}.path", f"'{path}' is being written: some of its rows lie in '{beside}'", advice)
        options += "&immutable=1"  # else SQLite makes files beside it
    database = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)
    database.text_factory = lambda content: content.decode("utf-8", source.encoding_errors)
    return database


def _table(database: sqlite3.Connection, path: Path, source: Written, at: str) -> str:
    """The table that the source names, or the only one."""
    listed = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name"
    )
    known = [name for (name,) in database.execute(listed)]
    if source.part in known:
        return str(source.part)
    if source.part is None and len(known) == 1:
        return str(known[0])
    if not known:
        raise bad_input(f"{at}.path", f"'{path}' has no tables", "name a database that has some")
    if source.part is None:
        advice = f"name one behind a `#`: {', '.join(known)}"
        raise bad_input(f"{at}.path", f"'{path}' has {len(known)} tables", advice)
    raise bad_input(f"{at}.path", f"'{path}' has no table '{source.part}'", did_you_mean(source.part, known))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _column(name: str, values: Sequence[Any], places: Sequence[str], where: str, at: str) -> pa.Array:
    """The values of a column, which are of one kind."""
    import pyarrow as pa

    first: dict[str, str] = {}
    for value, place in zip(values, places, strict=True):
        if value is not None:
            first.setdefault(KINDS[type(value)], place)
    if len(first) > 1:
        kinds = " and ".join(f"{kind} ({place})" for kind, place in first.items())
        advice = "the values of a column must be of one kind"
        raise bad_input(f"{at}.path", f"column '{name}' of '{where}' holds {kinds}", advice)
    numbers = any(isinstance(value, float) for value in values)
    return pa.array(values, pa.float64() if numbers else None)
