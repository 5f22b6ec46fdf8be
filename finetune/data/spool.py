"""Tables that are made a part at a time: in memory while they are small, then in a file that is mapped.

A file's pages are the operating system's to keep or to drop, so that a table takes no memory of the process. The file
has no name, and is gone with the process.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetune.core.errors import DiskFull, disk_full
from finetune.core.paths import CACHE, cache_folder
from finetune.data.nested import is_nested, json_array, plain_values

IN_MEMORY = 1 << 26
"""Bytes of a table up to which it is kept in memory, and that are written at once."""


class Mixed(ValueError):
    """A column whose parts are of kinds that have nothing in common."""

    def __init__(self, column: str, kinds: Sequence[tuple[str, int]]):
        super().__init__(f"column '{column}' holds several kinds of values")
        self.column = column
        self.kinds = kinds
        """What it holds, and the first row (from 1) of a part that does."""


class Spool:
    """Collects the parts of one table."""

    def __init__(self) -> None:
        self._waiting: list[pa.Table] = []
        self._bytes = 0
        self._files: list[tuple[IO[bytes], pa.ipc.RecordBatchFileWriter, pa.Schema]] = []

    def add(self, part: pa.Table) -> None:
        """Add some rows, whose columns may differ from those of other parts."""
        if not part.num_rows and (self._waiting or self._files):
            return
        if self._waiting and not self._waiting[0].num_rows:  # which says something only where there are no rows at all
            self._waiting = []
        self._waiting.append(part)
        self._bytes += part.nbytes
        if self._bytes > IN_MEMORY:
            self._write()

    def finish(self) -> pa.Table:
        """Give the table: columns in the order in which they first appeared; what a part lacks is null there.

        Raises :class:`Mixed`.
        """
        if not self._files:
            found = [*unified(self._waiting)]
            return pa.concat_tables(found).combine_chunks() if found else pa.table({})
        self._write()
        written = []
        for file, writer, _ in self._files:
            with file, told_when_full():
                writer.close()
                file.flush()
                pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            written.append(pa.ipc.open_file(pa.BufferReader(pa.py_buffer(pages))).read_all())
        self._files = []
        if len(written) == 1:
            return written[0]
        return spooled(unified([part for table in written for part in batches(table)]))

    def _write(self) -> None:
        """Write what waits, each run of parts that have the same columns at once."""
        runs: list[list[pa.Table]] = []
        for part in self._waiting:
            if runs and runs[-1][0].schema.equals(part.schema):
                runs[-1].append(part)
            else:
                runs.append([part])
        with told_when_full():
            for run in runs:
                table = pa.concat_tables(run).combine_chunks()
                if not self._files or not self._files[-1][2].equals(table.schema):
                    file = temporary_file()  # which `finish` closes
                    sink = pa.PythonFile(file, mode="w")
                    self._files.append((file, pa.ipc.new_file(sink, table.schema), table.schema))
                self._files[-1][1].write_table(table)
        self._waiting, self._bytes = [], 0
        pa.default_memory_pool().release_unused()


def spooled(parts: Iterable[pa.Table]) -> pa.Table:
    """The table of all ``parts``."""
    spool = Spool()
    for part in parts:
        spool.add(part)
    return spool.finish()


def batches(table: pa.Table, bytes_each: int = IN_MEMORY // 4) -> Iterator[pa.Table]:
    """Cut ``table`` into parts of about so many bytes, in order, without copying it."""
    rows = max(1, round(bytes_each * table.num_rows / max(table.nbytes, 1)))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def mapped(path: Path) -> pa.Table:
    """The table in an Arrow file, mapped and not read."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The ``rows`` of ``table``, perhaps some repeatedly, as a table of its own; itself where they are all. Of a large
    one they are in ascending order."""
    rows = np.asarray(rows)
    if np.array_equal(rows, np.arange(table.num_rows)):
        return table
    if table.nbytes <= IN_MEMORY:
        return table.take(pa.array(rows))
    assert (np.diff(rows) >= 0).all(), "expected ascending rows"
    spool, start = Spool(), 0
    for part in batches(table):
        first, last = np.searchsorted(rows, [start, start + part.num_rows])
        spool.add(part.take(pa.array(rows[first:last] - start)))
        start += part.num_rows
    return spool.finish()


def unified(parts: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Yield ``parts`` with the same columns of the same types, which they have where they were read at once."""
    if all(part.schema.equals(parts[0].schema) for part in parts):
        yield from parts
        return
    names = dict.fromkeys(name for part in parts for name in part.column_names)
    kinds = {name: _kind_of(name, parts) for name in names}
    for part in parts:
        yield pa.table({name: _as(part, name, kind) for name, kind in kinds.items()})


def _kind_of(name: str, parts: Sequence[pa.Table]) -> pa.DataType:
    """Find the type that a column has in all parts together."""
    found: dict[pa.DataType, int] = {}
    first = 1
    for part in parts:
        if name in part.column_names and not _is_empty(part[name]):
            found.setdefault(part[name].type, first)
        first += part.num_rows
    kinds = list(found)
    if len(kinds) < 2:
        return kinds[0] if kinds else next(part[name].type for part in parts if name in part.column_names)
    if all(map(is_nested, kinds)):
        return _nested(kinds)
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
        return _number(kinds)
    if all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds):
        return pa.large_string()
    raise Mixed(name, [(_word(kind), row) for kind, row in found.items()])


def _number(kinds: Sequence[pa.DataType]) -> pa.DataType:
    return pa.float64() if any(map(pa.types.is_floating, kinds)) else pa.int64()


def _nested(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """Find the type of lists or objects of several types: where they differ in parts that are empty, that of the parts
    that are not, else JSON."""
    found: pa.DataType | None = kinds[0]
    for kind in kinds[1:]:
        found = found and _fuller(found, kind)
    return found or pa.json_()


def _fuller(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_large_list(one) and pa.types.is_large_list(other):
        kinds = (one.value_type, other.value_type)
        if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
            return pa.large_list(_number(kinds))
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = _fuller(one.value_type, other.value_type)
        return inner and pa.list_(inner)
    if pa.types.is_struct(one) and pa.types.is_struct(other) and one.names == other.names:
        inside = [_fuller(one[place].type, other[place].type) for place in range(one.num_fields)]
        return None if None in inside else pa.struct(list(zip(one.names, inside, strict=True)))
    return None


def _is_empty(column: pa.ChunkedArray) -> bool:
    """Tell whether a part of a column says nothing: it has no value, or none that is a number."""
    if pa.types.is_floating(column.type):
        return bool(pc.all(pc.is_nan(column.drop_null())).as_py())  # true of none
    return column.null_count == len(column) and not is_nested(column.type)


def _as(part: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    if name not in part.column_names:
        return pa.nulls(part.num_rows, kind)
    column = part[name]
    if column.type == kind:
        return column
    if isinstance(kind, pa.JsonType):
        return json_array(plain_values(column))
    if is_nested(kind) and not _is_empty(column):
        return pa.array(column.to_pylist(), kind)
    if _is_empty(column) and not pa.types.is_floating(kind):
        return pa.nulls(part.num_rows, kind)
    return column.cast(kind)


def _word(kind: pa.DataType) -> str:
    is_ = pa.types
    if is_nested(kind):
        return "lists or objects"
    if is_.is_string(kind) or is_.is_large_string(kind):
        return "text"
    return "true or false" if is_.is_boolean(kind) else "numbers" if is_.is_primitive(kind) else str(kind)


def temporary_file() -> IO[bytes]:
    """Open a file without a name where there is room for large ones."""
    return TemporaryFile(prefix=".table-", dir=_folder())


def _folder() -> Path:
    """Find where files go: the cache folder, where there is one that can be written to, since the system's folder for
    temporary files may lie in memory."""
    folder = cache_folder()
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = None
    return folder if folder is not None and os.access(folder, os.W_OK) else Path(tempfile.gettempdir())


@contextmanager
def told_when_full() -> Iterator[None]:
    """Raise DiskFull, with what to do, for an error that says that there is no room for a table."""
    try:
        yield
    except OSError as error:
        if not disk_full(error):
            raise
        raise DiskFull(f"no room for the data in {_folder()}: make some, or name another folder in {CACHE}") from error
