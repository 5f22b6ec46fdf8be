"""Writes tables a part at a time: as csv, as lines of JSON, or as parquet, by the ending of a file's name."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from finetune.core.errors import bad_input, did_you_mean
from finetune.data.nested import is_nested, plain_values

if TYPE_CHECKING:
    from collections.abc import Sequence


class Writer:
    """Writes the rows of tables that have the same columns, one table after the other."""

    suffixes: ClassVar[tuple[str, ...]]

    def __init__(self, file: IO[bytes]):
        self.file = file

    def write(self, table: pa.Table) -> None:
        """Write all rows of ``table``."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is left."""


class CsvWriter(Writer):
    """Comma-separated values under a header line; lists and objects as JSON text, no value as an empty cell."""

    suffixes = (".csv",)
    separator = ","

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        self._headed = False

    def write(self, table: pa.Table) -> None:
        text = io.StringIO(newline="")
        lines = csv.writer(text, delimiter=self.separator, lineterminator="\n")
        if not self._headed:
            lines.writerow(table.column_names)
            self._headed = True
        lines.writerows([_cell(value) for value in row] for row in rows_of(table))
        self.file.write(text.getvalue().encode("utf-8", "surrogatepass"))


class LineWriter(Writer):
    """One JSON object a line; no number and no value are both null."""

    suffixes = (".jsonl", ".ndjson")

    def write(self, table: pa.Table) -> None:
        names = table.column_names
        for row in rows_of(table):
            said = {name: without_nan(value) for name, value in zip(names, row, strict=True)}
            line = json.dumps(said, ensure_ascii=False, allow_nan=False, default=str)
            self.file.write(line.encode("utf-8", "surrogatepass") + b"\n")


class ParquetWriter(Writer):
    """Parquet, a row group for each table."""

    suffixes = (".parquet",)

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.file, table.schema)
        self._writer.write_table(table.cast(self._writer.schema))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


WRITERS: tuple[type[Writer], ...] = (CsvWriter, LineWriter, ParquetWriter)


def writer_for(path: Path) -> type[Writer]:
    """Find what writes a file called so. Raises InputError for another ending."""
    suffix = path.suffix.lower()
    for each in WRITERS:
        if suffix in each.suffixes:
            return each
    known = [ending for each in WRITERS for ending in each.suffixes]
    raise bad_input("--output", f"'{path}' has no ending that says how to write it", did_you_mean(suffix, known))


def rows_of(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of ``table``, lists and objects as they were read."""
    columns: Sequence[list[Any]] = [plain_values(table[name]) for name in table.column_names]
    return zip(*columns, strict=True)


def _cell(value: Any) -> Any:
    """Write a value into a csv file: numbers with all their digits, true and false as JSON has them."""
    if isinstance(value, list | dict):
        return json.dumps(without_nan(value), ensure_ascii=False, default=str)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def without_nan(value: Any) -> Any:
    """JSON has no word for what is no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: without_nan(own) for name, own in value.items()}
    return list(map(without_nan, value)) if isinstance(value, list) else value


def refuse_unwritable(table: pa.Table, path: Path) -> None:
    """Refuse columns that a format has no way to write, before anything is computed."""
    if writer_for(path) is ParquetWriter:
        return
    for field in table.schema:
        if not is_nested(field.type) and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)):
            found = f"column '{field.name}' holds bytes, which {path.suffix} files cannot"
            raise bad_input("--output", found, "write a .parquet file, or leave the column out of the input")
