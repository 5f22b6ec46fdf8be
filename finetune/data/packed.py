"""Files that are compressed, by their last ending, read as if they were not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Last endings of files that are compressed, and pyarrow's names for how."""
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "bz2": b"BZh"}
"""How they begin."""

GROWS, HARMLESS = 200, 1 << 28
"""How many times its size a file may unpack to; and the bytes up to which it may be more. Text packs to a tenth; what
packs to a thousandth was made to fill a disk."""


class Grows(OSError):
    """A file unpacks to more than any data do."""

    def __init__(self) -> None:
        super().__init__(f"unpacks to more than {GROWS} times its size, which no data do")


def refuse_growth(size: int, unpacked: int) -> None:
    """Raise Grows where a file of so many bytes unpacks to too many."""
    if unpacked > max(GROWS * size, HARMLESS):
        raise Grows


class _Unpacked:
    """Counts what is read from a compressed file."""

    def __init__(self, file: Any, size: int):
        self._file, self._size, self._given = file, size, 0

    def __enter__(self) -> _Unpacked:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def read(self, size: int | None = None) -> bytes:
        if size is None:
            size = max(GROWS * self._size, HARMLESS) + 1
        found = bytes(self._file.read(size))
        self._given += len(found)
        refuse_growth(self._size, self._given)
        return found


def open_file(path: Path) -> Any:
    """Open ``path`` for its bytes: those that were compressed, where its last ending says that they are."""
    codec = COMPRESSED.get(path.suffix.lower())
    if codec is None:
        return open(path, "rb")
    import pyarrow as pa

    return _Unpacked(pa.CompressedInputStream(pa.OSFile(str(path)), codec), path.stat().st_size)


def read_bytes(path: Path) -> bytes:
    """The bytes of ``path``, without its compression."""
    with open_file(path) as file:
        return bytes(file.read())


def not_unpacked(path: Path, error: BaseException | None = None) -> tuple[str, str] | None:
    """Say what is wrong with a compressed file that cannot be read, and what to do; None: it is not compressed."""
    if isinstance(error, Grows):
        return str(error), "look at it; if it is right, name the file that you have unpacked"
    codec = COMPRESSED.get(path.suffix.lower())
    if codec is None:
        return None
    with open(path, "rb") as file:
        start = file.read(len(MAGIC[codec]))
    if start != MAGIC[codec]:
        return f"is not compressed with {codec}, as its ending says", f"take `{path.suffix}` off its name"
    return "is cut short or broken, and cannot be unpacked", "copy it again, or write it again"
