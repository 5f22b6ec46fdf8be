"""Energy that a device has taken, from counters of its own: NVML's of a GPU, RAPL's of processors and their memory.

They count all that runs on the device, and nothing else of the machine. Where none can be read, the reason is told.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows RAPL's counters. Most systems let only root read them, against spying by power."""

READ_EVERY = 20.0
"""Seconds between readings of RAPL: a counter of 2^32 times 61 µJ begins anew after 4 minutes at 1 kW."""

NVML = "libnvidia-ml.so.1"
"""NVIDIA's management library, which comes with the driver."""


class Counter:
    """Counts nothing, and says why; others count joules since they were made."""

    shared = False
    """Whether it counts for all processes on the machine, each of which has one."""

    def __init__(self, source: str):
        self.source = source

    def joules(self) -> float:
        """Read the joules so far; NaN where nothing is counted."""
        return math.nan


class Gpu(Counter):
    """One GPU's own total, in millijoules since its driver was loaded (NVML, since Volta)."""

    def __init__(self, nvml: ctypes.CDLL, handle: ctypes.c_void_p):
        super().__init__("the GPU's counter (NVML)")
        self._nvml, self._handle = nvml, handle
        self._start = self._read()

    def _read(self) -> float:
        found = ctypes.c_ulonglong()
        failed = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(found))
        return math.nan if failed else found.value / 1000

    def joules(self) -> float:
        return self._read() - self._start


class Processors(Counter):
    """All processors of the machine, and their memory where it is counted (RAPL).

    The counters wrap around, so they are read now and then, in a thread that ends when this object does.
    """

    shared = True

    def __init__(self, limits: Mapping[Path, int]):
        super().__init__("the processors' counters (RAPL)")
        self._limits, self._total, self._lock = limits, 0, threading.Lock()
        self._last = {path: int(path.read_text()) for path in limits}
        ended = threading.Event()
        weakref.finalize(self, ended.set)
        threading.Thread(target=_read_again, args=(weakref.ref(self), ended), daemon=True, name="energy").start()

    def joules(self) -> float:
        with self._lock:
            for path, limit in self._limits.items():
                now = int(path.read_text())
                self._total += (now - self._last[path]) % limit
                self._last[path] = now
            return self._total / 1e6


def _read_again(counter: weakref.ref[Processors], ended: threading.Event) -> None:
    while not ended.wait(READ_EVERY):
        if (alive := counter()) is not None:
            alive.joules()
        del alive


def energy_counter(device: torch.device) -> Counter:
    """Choose the energy counter of ``device``: the GPU's own, or that of all processors of the machine."""
    if device.type == "cuda":
        return gpu(str(torch.cuda.get_device_properties(device).uuid))
    return processors()


def gpu(uuid: str) -> Counter:
    """Open the counter of the GPU with this number (as torch writes it)."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        return Counter(f"{NVML} is not there")
    handle = ctypes.c_void_p()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode(), ctypes.byref(handle)):
        return Counter("NVML does not know this GPU")
    found = Gpu(nvml, handle)
    return Counter("this GPU has no energy counter") if math.isnan(found.joules()) else found


def processors(powercap: Path = POWERCAP) -> Counter:
    """Find RAPL's counters of whole processors and of memory; not of their parts, nor of the platform that holds
    them."""
    try:
        zones = [
            zone
            for zone in sorted(powercap.glob("intel-rapl:*"))
            if (zone / "name").read_text().strip().startswith(("package", "dram"))
        ]
        if not zones:
            return Counter("this machine shows no energy counter of its processors (RAPL)")
        # The counter begins anew after its largest value, which it shows.
        return Processors({zone / "energy_uj": int((zone / "max_energy_range_uj").read_text()) + 1 for zone in zones})
    except OSError as error:
        return Counter(f"the processors' energy counters (RAPL) cannot be read: {error.strerror}")
