"""Some rows of parquet files that are too large, or too far away, to be read whole.

Which rows are taken follows from the number of rows in each row group and from the split's seed alone: row groups are
drawn, and rows out of these. So the files are never gone through; only their footers, and the row groups that were
drawn, are read. Runs draw their own order of the rows in every epoch, so that the rows keep the order of the files.

Rows from elsewhere are kept in the cache folder a piece at a time, as they come: what was interrupted goes on behind
the last piece, and what was read once is not fetched again while the files are what they were.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from finetune.core.errors import bad_input, first_line
from finetune.core.progress import phase, say, track
from finetune.core.run_dir import atomic
from finetune.core.signals import stop_here
from finetune.data import cache
from finetune.data.arrow_types import plain
from finetune.data.draws import LIMIT, ROW_GROUPS, random_keys
from finetune.data.remote import Ranges, Remote
from finetune.data.spool import mapped, spooled, told_when_full

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData, ParquetFile

MIXED, MIXED_BYTES = 16, 1 << 28
"""Row groups out of which rows are drawn at least, as long as they take no more bytes together (in memory)."""

FOOTERS = 8
"""Files whose footers are read at once."""

PIECE = 1 << 25
"""Bytes of rows that are kept at once."""

AT_ONCE = 1 << 26
"""Bytes of a row group up to which all of it is fetched by one request, and not by one for each column."""

BATCH = 1 << 14
"""Rows of a row group that are decoded at once."""

STREAMS = 64
"""How many streams are kept: those that were used last."""

FORMAT = 1
"""Version of what is kept; part of its key."""


@dataclass(frozen=True)
class Shard:
    """A parquet file, of which the footer was read."""

    place: Path | Remote
    metadata: FileMetaData
    schema: pa.Schema

    @property
    def title(self) -> str:
        """Name it for people."""
        return self.place.title if isinstance(self.place, Remote) else str(self.place)

    def span(self, group: int) -> tuple[int, int]:
        """Tell where in the file a row group begins and ends."""
        found = self.metadata.row_group(group)
        columns = [found.column(number) for number in range(found.num_columns)]
        starts = [each.dictionary_page_offset or each.data_page_offset for each in columns]
        ends = [start + each.total_compressed_size for start, each in zip(starts, columns, strict=True)]
        return min(starts), max(ends)


@dataclass(frozen=True)
class Groups:
    """The row groups of all shards, in order."""

    shards: np.ndarray
    """(groups,) the shard that each is in."""
    inside: np.ndarray
    """(groups,) its number there."""
    rows: np.ndarray
    """(groups,) how many rows it has."""
    sizes: np.ndarray
    """(groups,) bytes of its values in memory."""

    @cached_property
    def starts(self) -> np.ndarray:
        """(groups + 1,) the number of the first row of each, over all shards; then that of all rows."""
        return np.concatenate([[0], np.cumsum(self.rows)])


def read_parquet(
    places: Sequence[Path | Remote], limit: int | None, seed: int, at: str
) -> tuple[pa.Table, np.ndarray, pa.Schema]:
    """Rows of parquet files with the same columns; their numbers over all files, ascending int64; and the files' own
    schema.

    Of more than ``limit`` rows, that many: out of row groups drawn by ``seed``. None: all of them.

    Raises:
        InputError: under the recipe path ``at``, for a file that is not there, or cannot be read.
    """
    shards = _all_opened(places, at)
    _refuse_other_columns(shards, at)
    groups = groups_of(shards)
    rows = drawn(groups.rows, groups.sizes, limit, seed)
    taken = _Taken(shards, groups, rows, at)
    if len(rows) < groups.starts[-1]:
        say(f"{at}: {taken.said()}")
    with phase(f"reading rows of {at}", len(rows)) as under_way:
        key = None if isinstance(places[0], Path) else taken.key
        table = taken.kept(key, under_way)
    return table, rows, shards[0].schema


def groups_of(shards: Sequence[Shard]) -> Groups:
    """List the row groups of all ``shards``."""
    found = [
        (number, group, shard.metadata.row_group(group))
        for number, shard in enumerate(shards)
        for group in range(shard.metadata.num_row_groups)
    ]
    columns = [(number, group, each.num_rows, each.total_byte_size) for number, group, each in found]
    return Groups(*np.array(columns, np.int64).reshape(-1, 4).T)


def drawn(counts: np.ndarray, sizes: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """Numbers of the rows to take, ascending int64, of row groups with ``counts`` rows and ``sizes`` bytes each.

    Row groups are drawn until they hold ``limit`` rows, and are at least :data:`MIXED` as long as these have no more
    than :data:`MIXED_BYTES`; then ``limit`` rows are drawn out of all of theirs. That is a sample of clusters: rows
    that stand in one row group are taken together more often than by chance.
    """
    if limit is None or limit >= counts.sum():
        return np.arange(counts.sum())
    order = np.argsort(random_keys(len(counts), seed, ROW_GROUPS), kind="stable")
    enough = int(np.searchsorted(np.cumsum(counts[order]), limit)) + 1
    mixed = min(MIXED, int(np.searchsorted(np.cumsum(sizes[order]), MIXED_BYTES, side="right")))
    starts = np.cumsum(counts) - counts
    groups = np.sort(order[: max(enough, mixed)])
    rows = np.concatenate([np.arange(starts[group], starts[group] + counts[group]) for group in groups])
    return np.sort(rows[np.argsort(random_keys(len(rows), seed, LIMIT), kind="stable")[:limit]])


@dataclass(frozen=True)
class _Taken:
    """Some rows of some shards, and how they are read."""

    shards: Sequence[Shard]
    groups: Groups
    rows: np.ndarray
    at: str

    @property
    def key(self) -> str | None:
        """Hash what the rows are; None where nothing tells a file from one that may stand there another day."""
        seals = [shard.place.seal for shard in self.shards if isinstance(shard.place, Remote)]
        if None in seals:
            return None
        layout = [hashlib.sha256(part.tobytes()).hexdigest() for part in (self.groups.rows, self.groups.sizes)]
        facts = [FORMAT, pa.__version__, seals, layout, hashlib.sha256(self.rows.tobytes()).hexdigest()]
        return cache.digest(facts)

    def said(self) -> str:
        """Say what is read."""
        chosen = np.concatenate(self._pieces())
        parts = zip(self.groups.shards[chosen], self.groups.inside[chosen], strict=True)
        spans = (self.shards[shard].span(int(group)) for shard, group in parts)
        size = sum(end - start for start, end in spans)
        files = "a file" if len(self.shards) == 1 else f"{len(self.shards):,} files"
        return (
            f"{len(self.rows):,} of {self.groups.starts[-1]:,} rows, out of {len(chosen):,} of "
            f"{len(self.groups.rows):,} row groups in {files}: {size / 1e6:,.1f} MB to read"
        )

    def kept(self, key: str | None, under_way: Any) -> pa.Table:
        """The rows, of which those that are kept under this ``key`` are not read again."""
        with cache.locked(key, "streams") as folder:
            if folder is None:
                return self._named(spooled(part for piece in self._pieces() for part in self._read(piece, under_way)))
            folder.mkdir(exist_ok=True)
            os.utime(folder)
            tables = []
            for number, piece in enumerate(self._pieces()):
                path = folder / f"{number:06d}.arrow"
                tables.append(_mapped(path) or self._write(path, piece, under_way))
                under_way.step(sum(table.num_rows for table in tables))
            cache.forget(folder.parent, STREAMS)
            return self._named(pa.concat_tables(tables) if tables else pa.table({}))

    def _named(self, table: pa.Table) -> pa.Table:
        """``table``, or one without rows that has the columns of the files."""
        return table if table.num_columns else plain(self.shards[0].schema.empty_table())

    def _write(self, path: Path, groups: np.ndarray, under_way: Any) -> pa.Table:
        """Read one piece into a file, which is there at once or not at all."""
        with told_when_full(), atomic(path) as temporary:
            schema = plain(self.shards[0].schema.empty_table()).schema
            with pa.ipc.new_file(str(temporary), schema) as file:
                for part in self._read(groups, under_way):
                    file.write_table(part)
        return mapped(path)

    def _pieces(self) -> list[np.ndarray]:
        """List the row groups that rows are taken of, those together that are kept at once."""
        counts = np.diff(np.searchsorted(self.rows, self.groups.starts))
        chosen = np.flatnonzero(counts)
        sizes = self.groups.sizes[chosen] * counts[chosen] / self.groups.rows[chosen]
        filled = (np.cumsum(sizes) - sizes) // PIECE
        return np.split(chosen, np.flatnonzero(np.diff(filled)) + 1)

    def _read(self, groups: np.ndarray, under_way: Any) -> Iterator[pa.Table]:
        """Yield the rows taken of ``groups``."""
        names = self.shards[0].schema.names
        for number, own in groupby(groups, lambda group: self.groups.shards[group]):
            shard = self.shards[number]
            opened = _open(shard.place, self.at, shard.metadata)
            for group in own:
                start, end = self.groups.starts[group : group + 2]
                first, last = np.searchsorted(self.rows, [start, end])
                wanted = self.rows[first:last] - start
                for part in _taken_of(opened, shard, int(self.groups.inside[group]), wanted, self.at):
                    yield plain(part.select(names))
                    under_way.step(under_way.done + part.num_rows)
                    stop_here(f"reading {self.at}")
            if isinstance(shard.place, Remote):
                shard.place.refuse_change()  # before what may be a mixture of two files is kept


def _taken_of(
    opened: tuple[Any, ParquetFile], shard: Shard, group: int, wanted: np.ndarray, at: str
) -> Iterator[pa.Table]:
    """Yield those rows of a row group that are ``wanted``, by their numbers in it."""
    source, file = opened
    start, end = shard.span(group)
    if isinstance(source, Ranges) and end - start <= AT_ONCE:
        source.hold(start, end)
    seen = 0
    with _told(shard.place, at):
        for batch in file.iter_batches(BATCH, row_groups=[group], use_threads=False):
            first, last = np.searchsorted(wanted, [seen, seen + batch.num_rows])
            if last > first:
                yield pa.Table.from_batches([batch]).take(pa.array(wanted[first:last] - seen))
            if last == len(wanted):
                return
            seen += batch.num_rows


def _all_opened(places: Sequence[Path | Remote], at: str) -> list[Shard]:
    """The files, whose footers are read several at once: a server's answer takes most of the time."""
    pool = ThreadPoolExecutor(FOOTERS)
    try:
        waiting = [pool.submit(copy_context().run, _opened, place, at) for place in places]
        return [each.result() for each in track(waiting, f"reading the footers of {at}")]
    finally:
        pool.shutdown(cancel_futures=True)


def _opened(place: Path | Remote, at: str) -> Shard:
    """A file whose footer is read."""
    _, file = _open(place, at)
    shard = Shard(place, file.metadata, file.schema_arrow)
    file.close()
    return shard


def _open(place: Path | Remote, at: str, metadata: FileMetaData | None = None) -> tuple[Any, ParquetFile]:
    """Open a parquet file, and what its bytes come from: they are asked for by the thread that reads, which may be
    told to stop."""
    import pyarrow.parquet

    with _told(place, at):
        source = place.open() if isinstance(place, Remote) else place
        return source, pyarrow.parquet.ParquetFile(source, metadata=metadata, pre_buffer=False)


@contextmanager
def _told(place: Path | Remote, at: str) -> Iterator[None]:
    """Turn what is wrong with a file into a problem of its source."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a column's name is no text
        name = place.title if isinstance(place, Remote) else place
        raise bad_input(f"{at}.path", f"'{name}' is not a readable parquet file: {first_line(error)}") from error


def _mapped(path: Path) -> pa.Table | None:
    """Map a piece; None where it is not there, or a crash of the system has left it broken."""
    try:
        return mapped(path)
    except (OSError, ValueError):  # what pyarrow raises for a broken file is a ValueError
        return None


def _refuse_other_columns(shards: Sequence[Shard], at: str) -> None:
    """Refuse files of which one has other columns, or columns of other types, than the first: what is read must not
    depend on which rows are drawn."""
    first, *others = (dict(zip(shard.schema.names, _types(shard), strict=True)) for shard in shards)
    for shard, columns in zip(shards[1:], others, strict=True):
        for name in {**first, **columns}:
            here, there = columns.get(name), first.get(name)
            if here != there:
                words = [f"of type {kind}" if kind else "not there" for kind in (here, there)]
                found = f"column '{name}' is {words[0]} in '{shard.title}' and {words[1]} in '{shards[0].title}'"
                raise bad_input(f"{at}.path", found, "name files with the same columns")


def _types(shard: Shard) -> list[pa.DataType]:
    return plain(shard.schema.empty_table()).schema.types
