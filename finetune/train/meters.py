"""What a run costs: tokens, seconds, memory; and the log of its training, `metrics.jsonl`."""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from finetune.run_dir import write_text


class Clock:
    """Seconds of training, carried over from what an interrupted run had spent."""

    def __init__(self, spent: float = 0.0):
        self._start = time.perf_counter() - spent

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


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
    """Peak memory since the last reset: allocated on a GPU, resident on a CPU (where not Linux: of the process)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class MetricsLog:
    """Appends rows to `metrics.jsonl`; a resumed run's log continues at its checkpoint as if nothing had happened.

    The checkpoint holds the steps up to ``resume_at`` and the evaluations up to ``validated``.
    """

    def __init__(self, path: Path, resume_at: int = 0, validated: int = 0, active: bool = True):
        self.path, self.active = path, active
        if active:
            limits = {"train": resume_at, "evaluation": validated}
            kept = [row for row in read_rows(path) if row["step"] <= limits[row["kind"]]]
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, **row: Any) -> None:
        """Append one row."""
        if self.active:
            with open(self.path, "a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log. A last line that a crash cut short is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


class Phases:
    """Seconds of each phase of a run, and the peak memory of all of them."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, dict[str, float]()
        reset_peak_memory(device)
        self._last = time.perf_counter()

    def end(self, phase: str, seconds: float | None = None) -> None:
        """``phase`` ends here, and the next begins; ``seconds`` where it had begun in another process."""
        now = time.perf_counter()
        self.seconds[phase], self._last = round(now - self._last if seconds is None else seconds, 3), now

    def facts(self) -> dict[str, Any]:
        """For the run's result."""
        return {
            "seconds": round(sum(self.seconds.values()), 3),
            "phases": self.seconds,
            "peak_memory_bytes": peak_memory_bytes(self.device),
        }
