"""Memory: kept from step to step on a CPU, lent by the disk, and told from other errors when there is no more."""

from __future__ import annotations

import ctypes
import math
import platform
import tempfile
from pathlib import Path

import torch

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt(3)."""


def keep_memory() -> bool:
    """Have the C allocator keep what is freed; False where it is not glibc's, and nothing changes.

    A training step frees and takes the same large blocks as the one before. glibc gives them back to the system in
    between, which has to clear every page of them anew.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    wanted = ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 64 << 20))
    return all([libc.mallopt(parameter, value) == 1 for parameter, value in wanted])


def return_memory() -> None:
    """Have the C allocator give back what is freed, as it does by itself: where blocks of other sizes come and go all
    the time, as in a model that is gathered part by part, what is kept fits nothing that follows."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in ((MMAP_MAX, 1 << 16), (TRIM_THRESHOLD, 128 << 10), (TOP_PAD, 128 << 10)):
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


OWN = 1 << 30
"""Bytes of a GPU's memory that torch takes itself, at most, before anything is put there."""


def taken_by_others(device: torch.device) -> int:
    """Tell how many bytes of a GPU's memory other processes have, such as another study's; 0 where it is not more than
    :data:`OWN`."""
    free, total = torch.cuda.mem_get_info(device)
    taken: int = total - free - torch.cuda.memory_reserved(device)
    return taken if taken > OWN else 0


def room_on_disk(size: tuple[int, ...], dtype: torch.dtype, folder: Path) -> torch.Tensor:
    """A tensor that lies in ``folder``, and vanishes with the process."""
    count = math.prod(size)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".tensor-", delete=False) as file:
        file.truncate(count * dtype.itemsize)
    mapped = torch.from_file(file.name, shared=True, size=count, dtype=dtype)
    Path(file.name).unlink()  # the mapping holds the room, and a crash leaves nothing behind
    return mapped.reshape(size)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` says that memory ran out, on a GPU or, where the system refuses, on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
