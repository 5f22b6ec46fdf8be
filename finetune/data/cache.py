"""Large data as they were read, cleaned, divided and encoded before: mapped from the cache folder when they are wanted
again.

An entry is filed under a hash of all that it depends on: the files by name, size and times, the options, Python, every
package and our own source. Data that are small, or that lie on a hub and are not streamed, are not kept: reading them
again is quick, or `datasets` keeps them. Processes that start together wait for the first of them, so that the work is
done once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import BaseFileLock, FileLock, Timeout

from finetune.core.errors import Damaged, InputError
from finetune.core.paths import cache_folder
from finetune.core.progress import phase
from finetune.core.run_dir import read_json, write_json
from finetune.core.signals import stop_here
from finetune.core.unchanged import Elsewhere, Files, software
from finetune.data import spool
from finetune.data.options import Source
from finetune.data.places import places_of
from finetune.data.remote import Remote

ENTRIES = 12
"""How many are kept: those that were used last."""

FACTS = "facts.json"

WAIT = 0.5
"""Seconds of waiting for another process after which we look whether we are to stop."""

Kept = tuple[dict[str, pa.Table], Any]
"""Tables by name, and what else there is to know, which JSON can hold."""


def key_of(sources: Iterable[tuple[str, Source]], wanted: Sequence[Any]) -> str | None:
    """Hash what is ``wanted`` of the ``sources``, given with their recipe paths, and all that it depends on; None for
    what is not kept."""
    if cache_folder() is None:
        return None
    known, total = Files(), 0
    known.left = 0  # so large that contents would take too long
    try:
        facts: list[Any] = []
        for at, source in sources:
            for place in places_of(source, at):
                found = [place.seal] if isinstance(place, Remote) else known.at(place.absolute())
                for seal in found:
                    if seal is None:
                        return None
                    facts.append(seal)
                    total += seal[1]
        if total <= spool.IN_MEMORY:
            return None
        return digest([facts, wanted, software(environment=False)])
    except (Elsewhere, InputError, OSError):  # reading says what is wrong
        return None


def deeper(key: str, wanted: Sequence[Any]) -> str:
    """The key of what is ``wanted`` of the entry with this ``key``."""
    return digest([key, wanted])


def digest(facts: Sequence[Any]) -> str:
    """Hash ``facts``, which JSON can hold but for options."""
    return hashlib.sha256(json.dumps(facts, default=_plain).encode()).hexdigest()[:32]


def kept(key: str | None, make: Callable[[], Kept]) -> Kept:
    """What ``make`` gives, or gave when it was called for this ``key``, mapped from files; None: it is not kept."""
    with locked(key, "data") as folder:
        if folder is None:
            return make()
        found = _read(folder)
        if found is None:
            _write(folder, *make())
            forget(folder.parent, ENTRIES)
            found = _read(folder)
            assert found is not None, "it was written just now"
        os.utime(folder)
        return found


@contextmanager
def locked(key: str | None, kind: str) -> Iterator[Path | None]:
    """The folder of the entry with this ``key``, which no other process works on in the meantime and which may not be
    there yet, among those of its ``kind``; None where there is no place for it."""
    lock = _lock(key, kind)
    if lock is None:
        yield None
        return
    with lock:
        yield Path(lock.lock_file).with_suffix("")


def _lock(key: str | None, kind: str) -> BaseFileLock | None:
    """Take the lock that belongs to a ``key``, when no other process has it; None where there is no folder for one."""
    place = cache_folder()
    if key is None or place is None:
        return None
    try:
        (place / kind).mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / kind / f"{key}.lock")
        with phase("waiting for another process that prepares the same data"):
            while not _taken(lock):
                stop_here("waiting for another process that prepares the same data")
    except (OSError, NotImplementedError):  # a folder that cannot be written to, or a file system without locks
        return None
    return lock


def _taken(lock: BaseFileLock) -> bool:
    """Wait a moment for a lock; tell whether we have it."""
    try:
        lock.acquire(timeout=WAIT)
    except Timeout:
        return False
    return True


def _read(folder: Path) -> Kept | None:
    """Map an entry; None where there is none, or one that a crash of the system has left broken."""
    try:
        facts = read_json(folder / FACTS)
        names: list[str] = facts["tables"]
        return {name: spool.mapped(folder / f"{number}.arrow") for number, name in enumerate(names)}, facts["facts"]
    except (OSError, ValueError, KeyError, Damaged):  # what pyarrow raises for a broken file is a ValueError
        return None


def _write(folder: Path, tables: Mapping[str, pa.Table], facts: Any) -> None:
    """Write an entry, which is there at once or not at all."""
    shutil.rmtree(folder, ignore_errors=True)
    with spool.told_when_full(), tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
        made = Path(temporary) / "entry"
        made.mkdir()
        for number, table in enumerate(tables.values()):
            with pa.ipc.new_file(str(made / f"{number}.arrow"), table.schema) as file:
                for part in spool.batches(table):
                    file.write_table(part)
        write_json(made / FACTS, {"tables": list(tables), "facts": facts})
        made.replace(folder)


def forget(place: Path, most: int) -> None:
    """Remove the entries that were used longest ago, when there are more than ``most``."""
    entries = sorted((path for path in place.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime)
    for path in entries[most:]:
        shutil.rmtree(path, ignore_errors=True)  # mapped tables of it stay as they are
        path.with_suffix(".lock").unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json")
