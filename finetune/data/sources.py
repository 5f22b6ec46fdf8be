"""From what a recipe's `path` names to a dataset, in memory or, where it is large, mapped from a file."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from finetune.core.errors import InputError, bad_input
from finetune.core.paths import resolve_paths
from finetune.core.progress import PART, parts, phase
from finetune.core.signals import stop_here
from finetune.data.arrow_types import beyond_the_calendar, unknown_columns
from finetune.data.draws import LIMIT, random_keys
from finetune.data.encodings import HEAD
from finetune.data.formats.base import FORMATS, Format, named_by, not_text
from finetune.data.formats.delimited import recognise
from finetune.data.hub import read_hub, stream_hub
from finetune.data.mapping import add_columns, sources_of
from finetune.data.options import NO_SPLITS, NO_STREAM, STREAMED, Source
from finetune.data.packed import COMPRESSED, not_unpacked, open_file
from finetune.data.remote import Remote, remotes
from finetune.data.spool import Mixed, batches, spooled, taken
from finetune.data.streaming import read_parquet

if TYPE_CHECKING:
    from datasets import Dataset

EXAMPLE = "example"
"""The column that numbers the rows, from 0."""


def read(source: Source, at: str, seed: int) -> Dataset:
    """The examples of ``source``, with its new columns and ``example``, the row's number in the source from 0.

    ``at`` is the recipe path of the source (``data.train``); ``seed`` draws ``limit``'s sample, which keeps the
    source's order. The network is used for hub datasets, and for addresses, only.

    Raises:
        InputError: at a path under ``at``, when it is not there, not readable or empty.
    """
    written, table, delimited, rows = _checked(source, at, seed)
    _refuse_own_example(written, source, at)
    if source.columns:
        table = spooled(_with_columns(table, written if delimited else None, source, at))
    table = with_example(table, rows)
    if source.limit is not None and source.limit < table.num_rows:
        table = taken(
            table, np.sort(np.argsort(random_keys(table.num_rows, seed, LIMIT), kind="stable")[: source.limit])
        )
    return as_dataset(table)


class Rows(NamedTuple):
    """The rows of a source as they are written there, for whoever gives them back."""

    written: pa.Table
    """With every value as the source has it: of a delimited file, all are texts."""
    table: pa.Table
    """With numbers where all values of a column are."""
    delimited: bool

    def part(self, start: int, count: int, columns: Mapping[str, str], at: str, encoding: str) -> Dataset:
        """Give ``count`` of them as :func:`read` does, from number ``start`` on, with new ``columns``."""
        part, texts = self.table.slice(start, count), self.written.slice(start, count)
        made = add_columns(part, columns, at, texts if self.delimited else None, encoding, start)
        return as_dataset(with_example(made, np.arange(start, start + part.num_rows)))


def read_rows(source: Source, at: str) -> Rows:
    """Read ``source`` as :func:`read` does, without its new columns; a column may be called `example`."""
    written, table, delimited, _ = _checked(source, at, 0)
    return Rows(written, table, delimited)


def _checked(source: Source, at: str, seed: int) -> tuple[pa.Table, pa.Table, bool, np.ndarray | None]:
    """What a source has, with every value as it is written and with numbers recognised; whether it is of a delimited
    file; and the rows' numbers where not all are read."""
    with phase(f"reading {at}"):
        written, delimited, rows = _read(source, at, seed)
    stop_here(f"reading {at}")
    if not written.num_rows or not written.num_columns:
        raise bad_input(f"{at}.path", f"'{source.path}' has no examples", "name a file that has some")
    if unknown := unknown_columns(written):
        kinds = ", ".join(f"'{name}' ({written.schema.field(name).type})" for name in unknown)
        raise bad_input(
            f"{at}.path", f"'{source.path}' has columns of types that cannot be read: {kinds}", "leave them out"
        )
    if beyond := beyond_the_calendar(written):
        found = f"'{source.path}' has times of no year from 1 to 9999 in {', '.join(map(repr, beyond))}"
        raise bad_input(f"{at}.path", found, "correct them, or write them as numbers")
    return written, recognise(written) if delimited else written, delimited, rows


def _read(source: Source, at: str, seed: int) -> tuple[pa.Table, bool, np.ndarray | None]:
    """The rows of a source; whether they are of a delimited file, in which all is text; and their numbers in it where
    not all are read."""
    if source.kind == "hub" and source.streaming:
        table, rows = stream_hub(source, at, seed)
        return table, False, rows
    if source.kind == "hub":
        return read_hub(source, at), False, None
    if source.remote:
        return _read_parquet(remotes(source.place.file, at), source, at, seed)
    return _read_local(source, at, seed)


def _read_parquet(
    places: Sequence[Path | Remote], source: Source, at: str, seed: int
) -> tuple[pa.Table, bool, np.ndarray]:
    table, rows, _ = read_parquet(places, source.limit if source.streaming else None, seed, at)
    return table, False, rows


def _with_columns(table: pa.Table, written: pa.Table | None, source: Source, at: str) -> Iterator[pa.Table]:
    """Yield some rows of ``table`` at a time, with the new columns."""
    start = 0
    for part in batches(table):
        texts = None if written is None else written.slice(start, part.num_rows)
        yield add_columns(part, source.columns, at, texts, source.encoding, start)
        start += part.num_rows
        stop_here(f"reading {at}")


def as_dataset(table: pa.Table) -> Dataset:
    """``table`` as a dataset, which `datasets` caches nowhere."""
    import datasets
    from datasets.fingerprint import generate_random_fingerprint

    # Without a name it would be called after a hash of all that it holds.
    return datasets.Dataset(table.replace_schema_metadata(None), fingerprint=generate_random_fingerprint())


def as_table(dataset: Dataset) -> pa.Table:
    """The rows of ``dataset`` as an Arrow table."""
    return dataset.with_format("arrow")[:]


def slices(dataset: Dataset, title: str, size: int = PART) -> Iterator[tuple[int, Dataset]]:
    """Some rows of ``dataset`` at a time, and the number of the first of them, as a phase that counts them."""
    table = as_table(dataset)
    for rows in parts(table.num_rows, title, size):
        yield rows.start, as_dataset(table.slice(rows.start, len(rows)))


def with_example(table: pa.Table, rows: np.ndarray | None = None) -> pa.Table:
    """``table`` with the numbers of its ``rows`` in ``example``, the last column; None: from 0."""
    if EXAMPLE in table.column_names:
        table = table.drop_columns(EXAMPLE)
    numbers = np.arange(table.num_rows) if rows is None else rows
    return table.append_column(EXAMPLE, pa.array(numbers.astype(np.int64)))


def _refuse_own_example(table: pa.Table, source: Source, at: str) -> None:
    """Refuse a column that our row number would hide, unless a new column keeps what is in it."""
    known = table.column_names
    found = f"'{EXAMPLE}' is the name of the row number that every dataset gets, and cannot be a column of its own"
    if EXAMPLE in source.columns:
        raise bad_input(f"{at}.columns", found, "give the new column another name")
    if EXAMPLE in known and not any(EXAMPLE in sources_of(recipe, known) for recipe in source.columns.values()):
        taken = {*known, *source.columns}
        free = next(name for number in count() if (name := f"own_{EXAMPLE}{number or ''}") not in taken)
        raise bad_input(f"{at}.columns", found, f"give the column another name too: `columns: {{{free}: {EXAMPLE}}}`")


def _read_local(source: Source, at: str, seed: int) -> tuple[pa.Table, bool, np.ndarray | None]:
    """The rows at a path of this machine, as :func:`_read` gives them."""
    paths = resolve_paths(source.place.file, f"{at}.path")
    found = FORMATS.get(source.kind) if source.kind else _format_of(paths, source, at)
    if paths[0].is_dir() and not found.folder and found.owns(paths[0]):
        paths = found.files(paths[0])
    if paths[0].is_dir() != found.folder:
        there, wanted = ("a folder", f"a {found.name} file") if paths[0].is_dir() else ("a file", "a folder")
        raise bad_input(f"{at}.path", f"'{source.path}' is {there}, where {wanted} is expected")
    if source.split is not None and not found.has_splits:
        raise bad_input(f"{at}.split", f"'{source.path}' has no splits", NO_SPLITS)
    if source.streaming and found.name != STREAMED:
        raise bad_input(f"{at}.streaming", f"'{source.path}' is read as {found.name}", NO_STREAM)
    if source.streaming:
        return _read_parquet(paths, source, at, seed)
    if len(paths) == 1 and found.mapped:
        return found.read(paths[0], source, at), found.delimited, None
    starts: list[int] = []
    try:
        return spooled(_blocks(found, paths, starts, source, at)), found.delimited, None
    except Mixed as error:
        raise _several_kinds(error, paths, starts, at) from error
    except OSError as error:
        raise bad_input(f"{at}.path", f"'{source.path}' cannot be read: {error.strerror or error}") from error


def _blocks(
    found: type[Format], paths: Sequence[Path], starts: list[int], source: Source, at: str
) -> Iterator[pa.Table]:
    """Yield the blocks of all files, and note at which row each of them starts, from 0."""
    rows = 0
    for path in paths:
        starts.append(rows)
        try:
            for block in found.blocks(path, source, at):
                rows += block.num_rows
                yield block
                stop_here(f"reading {at}")
        except OSError as error:
            reason, advice = not_unpacked(path, error) or (f"cannot be read: {error.strerror or error}", "")
            said = source.path if len(paths) == 1 else path
            raise bad_input(f"{at}.path", f"'{said}' {reason}", advice) from error


def _several_kinds(error: Mixed, paths: Sequence[Path], starts: Sequence[int], at: str) -> InputError:
    """The error for a column whose values are of several kinds, in one file or in several."""
    if len(paths) == 1:
        kinds = " and ".join(f"{kind} (row {row:,} and after)" for kind, row in error.kinds)
        wrong = f"column '{error.column}' of '{paths[0]}' holds {kinds}"
    else:
        files = [bisect_left(starts, row) - 1 for _, row in error.kinds]  # of empty ones, the last starts there too
        places = [
            f"'{paths[file]}', row {row - starts[file]:,}" for file, (_, row) in zip(files, error.kinds, strict=True)
        ]
        kinds = " and ".join(
            f"{kind} ({place} and after)" for (kind, _), place in zip(error.kinds, places, strict=True)
        )
        wrong = f"column '{error.column}' holds {kinds}"
    return bad_input(f"{at}.path", wrong, "the values of a column must be of one kind")


def _format_of(paths: Sequence[Path], source: Source, at: str) -> type[Format]:
    """The format of what lies there, where it can be told."""
    if paths[0].is_dir():
        return _format_of_folder(paths[0], at)
    found = {named_by(path.name): path for path in reversed(paths)}
    unknown = found.pop(None, None)
    if unknown is not None:
        said = source.path if len(paths) == 1 else unknown
        raise bad_input(f"{at}.path", f"what '{said}' is cannot be told from its name", _format_advice(unknown, at))
    if len(found) > 1:
        kinds = " and ".join(sorted(f"{each.name} ('{path}')" for each, path in found.items() if each))
        advice = "name those of one format, as in `*.csv`"
        raise bad_input(f"{at}.path", f"'{source.path}' matches files of several formats: {kinds}", advice)
    return next(each for each in found if each)


def _format_of_folder(folder: Path, at: str) -> type[Format]:
    """The one format that takes ``folder`` for its own."""
    formats = FORMATS.all().values()
    owners = [each for each in formats if each.owns(folder)]
    if len(owners) == 1:
        return owners[0]
    if owners:
        names = " or ".join(each.name for each in owners)
        raise bad_input(
            f"{at}.path", f"the folder '{folder}' may be of several formats", f"set `{at}.format` to {names}"
        )
    advice = f"expected {'; or '.join(each.holds for each in formats if each.holds)}; for a table, name the file itself"
    raise bad_input(f"{at}.path", f"the folder '{folder}' has no text files in sub-folders, and no table", advice)


def _format_advice(path: Path, at: str) -> str:
    """Advise on a file whose name says nothing: a format is advised only for what it can read."""
    try:
        with open_file(path) as file:
            start = bytes(file.read(HEAD))
    except OSError as error:
        broken = not_unpacked(path, error)
        return f"it {broken[0]}: {broken[1]}" if broken else f"it cannot be read: {error.strerror or error}"
    if advice := not_text(start):
        return "unpack it: only text is read compressed" if path.suffix.lower() in COMPRESSED else advice
    formats = FORMATS.all()
    endings = f"known endings: {', '.join(suffix for each in formats.values() for suffix in each.suffixes)}"
    if b"\0" in start:
        return f"it does not look like text; convert it ({endings})"
    *others, last = (name for name, each in formats.items() if not each.binary and not each.folder)
    return f"set `{at}.format` to {', '.join(others)} or {last} ({endings})"
