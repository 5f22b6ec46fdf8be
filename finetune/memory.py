"""Memory: kept from step to step on a CPU, and told from other errors when there is no more."""

from __future__ import annotations

import ctypes
import platform

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


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or, where the system refuses, on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
