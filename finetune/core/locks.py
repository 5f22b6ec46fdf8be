"""Locks of the system on files, which end with the process that holds them, however that ends."""

from __future__ import annotations

from filelock import BaseFileLock, Timeout


def locked(lock: BaseFileLock) -> bool:
    """Take a lock of the system; False where the file system has none. Raises Timeout where another process has it."""
    try:
        lock.acquire()
    except Timeout:
        raise
    except (OSError, NotImplementedError):
        return False
    return True
