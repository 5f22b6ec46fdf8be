"""Reads parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from finetune.core.errors import bad_input, first_line
from finetune.data.encodings import Written
from finetune.data.formats.base import FORMATS, Format

if TYPE_CHECKING:
    import pyarrow as pa


ROWS = 1 << 16
"""Rows that are read at once."""


@FORMATS.register
class Parquet(Format):
    """A parquet file, or a folder of nothing else; categories, views and other ways to store the same values become
    plain columns.

    The files of a folder are read in the order of their names; names that begin with ``.`` or ``_`` are passed over.
    """

    name: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    binary: ClassVar[bytes] = b"PAR1"
    holds: ClassVar[str] = "only .parquet files"

    @classmethod
    def owns(cls, folder: Path) -> bool:
        found = cls.files(folder)
        return bool(found) and all(path.is_file() and path.suffix.lower() in cls.suffixes for path in found)

    @classmethod
    def files(cls, folder: Path) -> list[Path]:
        return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))

    @classmethod
    def blocks(cls, path: Path, source: Written, at: str) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.parquet

        from finetune.data.arrow_types import plain

        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for rows in file.iter_batches(ROWS):
                    yield plain(pa.Table.from_batches([rows]))
                if not file.metadata.num_rows:
                    yield plain(file.schema_arrow.empty_table())
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name is no text
            reason = first_line(error)
            raise bad_input(f"{at}.path", f"'{path}' is not a readable parquet file: {reason}") from error
