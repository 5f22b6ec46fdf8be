"""The costs of a run: tokens, seconds, memory; and the log of its training, `metrics.jsonl`."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from finetune.core.events import Event, training_event
from finetune.core.run_dir import RunDir, write_text
from finetune.train.energy import energy_counter


class Clock:
    """Seconds of training, carried over from what an interrupted run had spent."""

    def __init__(self, spent: float = 0.0):
        self._start = time.perf_counter() - spent

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


class FlopCounter(FlopCounterMode):
    """Counts floating-point operations of all modules together.

    Torch's own also tells them apart, by hooks that keep alive what gradient checkpointing has computed again: all
    blocks' activations, where it is there to keep one's.
    """

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker: Any = _Everywhere()


class _Everywhere:
    """Stands in for what tracks modules."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Meter:
    """Seconds of training by phase: data, forward, backward, optimizer, evaluation, writing."""

    def __init__(self, device: torch.device, spent: Mapping[str, float] | None = None):
        self.device, self._spent = device, dict(spent or {})
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Within the context, count seconds as those of ``phase``."""
        if self.device.type == "cuda":
            # The GPU works behind; waiting for it here would slow down what is measured.
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((phase, begin, end))
        else:
            begun = time.perf_counter()
            yield
            self._add(phase, time.perf_counter() - begun)

    def _add(self, phase: str, seconds: float) -> None:
        self._spent[phase] = self._spent.get(phase, 0.0) + seconds

    @property
    def seconds(self) -> dict[str, float]:
        """Give the seconds so far, by phase."""
        if self._events:
            torch.cuda.synchronize(self.device)
            for phase, begin, end in self._events:
                self._add(phase, begin.elapsed_time(end) / 1000)
            self._events.clear()
        return {phase: round(spent, 3) for phase, spent in self._spent.items()}


PEAK_SECONDS = 0.2
"""How long a machine's fastest matrix product is looked for."""


@lru_cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations per second of this machine's own fastest matrix product, once, in 0.2 s.

    Of the largest matrices whose product takes no longer: arithmetic that a processor only emulates can take seconds
    for those that keep others busy.
    """
    largest = 8192 if device.type == "cuda" else 1536
    size, took = largest // 16, 0.0
    while 8 * took < PEAK_SECONDS and size < largest:
        size *= 2
        time_product = _product(size, device, dtype)
        took = min(time_product(), time_product())  # the first one of all also waits for its library to begin
    begun = time.perf_counter()
    while time.perf_counter() - begun < PEAK_SECONDS:
        took = min(took, time_product())
    return 2 * size**3 / took


def _product(size: int, device: torch.device, dtype: torch.dtype) -> Callable[[], float]:
    """What multiplies two square matrices and returns the seconds it took."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def multiply() -> float:
        _wait_for(device)
        begun = time.perf_counter()
        left @ right
        _wait_for(device)
        return time.perf_counter() - begun

    return multiply


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring peak memory anew, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # "5" resets the high-water mark that VmHWM reports: proc(5), clear_refs. Where a sandbox forbids that, the
        # peak is the process's so far: too high rather than too low.
        with suppress(PermissionError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Read the peak memory since the last reset: allocated on a GPU, resident on a CPU (where not Linux: of the
    process)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def finite(value: float) -> float | None:
    """Replace NaN and infinity, for which JSON has no word, by None."""
    return value if math.isfinite(value) else None


class MetricsLog:
    """Appends rows to `metrics.jsonl`; a resumed run's log continues at its checkpoint as if nothing had happened.

    The checkpoint holds the steps up to ``resume_at`` and the evaluations up to ``validated``. ``tell`` is called with
    every row that is appended, as an event.
    """

    def __init__(
        self,
        folder: RunDir,
        resume_at: int = 0,
        validated: int = 0,
        active: bool = True,
        tell: Callable[[Event], None] | None = None,
    ):
        self.folder, self.path, self.active, self.tell = folder, folder.metrics, active, tell
        path = self.path
        if active:
            limits = {"train": resume_at, "evaluation": validated}
            kept = [row for row in read_rows(path) if row["step"] <= limits[row["kind"]]]
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, **row: Any) -> None:
        """Append one row."""
        if self.active:
            with open(self.path, "a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
            if self.tell is not None:
                self.tell(training_event(self.folder.variant, self.folder.seed, row))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a log. A last line that a crash cut short is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


class Phases:
    """Seconds of each phase of a run and energy: its share of those of its group; and the peak memory of all of them.

    ``total`` adds up what each process has measured.
    """

    def __init__(self, device: torch.device, runs: int = 1, total: Callable[[float], float] = float):
        self.device, self.runs, self.total, self.seconds = device, runs, total, dict[str, float]()
        self.energy = energy_counter(device)
        self._joules = math.nan
        reset_peak_memory(device)
        self._last = time.perf_counter()

    def end(self, phase: str, seconds: float | None = None) -> None:
        """End ``phase`` here, and begin the next; ``seconds`` where it had begun in another process."""
        now = time.perf_counter()
        spent = now - self._last if seconds is None else seconds
        self.seconds[phase], self._last = round(spent / self.runs, 3), now
        self._joules = self.energy.joules()

    def facts(self, whole: bool = True) -> dict[str, Any]:
        """Give the seconds, energy and memory for the run's result; every process has to ask. ``whole``: the phases
        were measured from their beginning, which energy is not where a run goes on in another process."""
        joules = self._joules if self.energy.shared else self.total(self._joules)
        source = self.energy.source if whole else "the run was interrupted, and its beginning was not measured"
        return {
            "seconds": round(sum(self.seconds.values()), 3),
            "phases": self.seconds,
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "energy": {"joules": finite(round(joules / self.runs, 2)) if whole else None, "source": source},
        }
