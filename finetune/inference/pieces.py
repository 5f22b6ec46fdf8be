"""The output of a long prediction while it is being made: pieces in a folder beside it, each whole or not there.

Killed at any moment and begun again it goes on with the first piece that is missing, and the file that is made of all
of them in the end is the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from finetune.core.errors import Damaged, DiskFull, FinetuneError, bad_input, disk_full, not_writable
from finetune.core.locks import locked
from finetune.core.run_dir import atomic, read_json, undamaged, write_json

KEY = "what.json"
"""The file that says what the pieces are of."""


class Pieces:
    """The pieces that there are of the output ``path``."""

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key
        self.folder = path.with_name(f".{path.name}.partial")

    def open(self) -> int:
        """Keep the pieces of the same work, and remove those of another; gives how many are kept."""
        if self.folder.exists() and self._known() != self.key:
            shutil.rmtree(self.folder)
        if not self.folder.exists():
            self.folder.mkdir()
            write_json(self.folder / KEY, {"key": self.key})
        return len(list(self.folder.glob("*.arrow")))

    def _known(self) -> str | None:
        try:
            return str(read_json(self.folder / KEY)["key"])
        except (Damaged, FileNotFoundError, KeyError, TypeError):  # it was killed before it had written that
            return None

    def _file(self, start: int) -> Path:
        return self.folder / f"{start:012}.arrow"

    def has(self, start: int) -> bool:
        """Tell whether the piece that begins with row ``start`` is there."""
        return self._file(start).exists()

    def write(self, start: int, table: pa.Table) -> None:
        """Keep the piece that begins with row ``start``."""
        with atomic(self._file(start)) as temporary:
            file = pa.OSFile(str(temporary), "wb")
            with file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)

    def read(self, start: int) -> pa.Table:
        """Read the piece that begins with row ``start``."""
        path = self._file(start)
        with undamaged(path), pa.OSFile(str(path), "rb") as file:
            return pa.ipc.open_file(file).read_all()

    def remove(self) -> None:
        """Take all of them away."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Be the only process that writes ``path`` within the context. Raises InputError where another one writes it, and
    where it could not be written."""
    _refuse_place(path)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0, fallback_to_soft=False)
    try:
        locked(lock)  # where there are no locks, one has to see to it that nobody else writes there
    except Timeout as error:
        found, advice = f"another process is writing '{path}'", "wait until it has ended, or name another file"
        raise bad_input("--output", found, advice) from error
    try:
        _try(path)
        yield
    finally:
        if lock.is_locked:
            Path(lock.lock_file).unlink(missing_ok=True)  # while it is ours: whoever opened it before looks again
            lock.release()


def _refuse_place(path: Path) -> None:
    if path.is_dir():
        raise bad_input("--output", f"'{path}' is a folder", "name a file in it, ending in .csv, .jsonl or .parquet")
    if not path.parent.is_dir():
        raise bad_input("--output", f"there is no folder '{path.parent}'", "make it, or name another one")


def _try(path: Path) -> None:
    """Refuse a folder that cannot be written to."""
    tried = path.with_name(f".{path.name}.try")
    try:
        with atomic(tried) as temporary:
            temporary.write_bytes(b"")
        tried.unlink()
    except OSError as error:
        found = f"'{path.parent}' cannot be written to: {error.strerror or error}"
        raise bad_input("--output", found, "name another folder") from error


@contextmanager
def told_when_unwritten(path: Path) -> Iterator[None]:
    """Say in one line where the output could not be written; what was made of it is kept."""
    try:
        yield
    except OSError as error:
        kept = "what is there is kept: the same command goes on with it"
        if disk_full(error):
            raise DiskFull(f"no room to write {path}: make some; {kept}") from error
        if reason := not_writable(error, path.parent):
            raise FinetuneError(f"{path} could not be written: {reason}; {kept}") from error
        raise
