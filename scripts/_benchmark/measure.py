"""A command in a fresh process: how long it took, and the most memory it and its children ever held."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class Failed(Exception):
    """A measured command failed; the message ends with the last it said."""


@dataclass(frozen=True)
class Spent:
    """What a command cost."""

    seconds: float
    """Of the whole process, from before it was started until it had ended."""
    peak_memory_bytes: int
    """Resident; of the largest one where there were several processes."""
    ended: float
    """Seconds since 1970."""


def run_fresh(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    accepted: Sequence[int] = (0,),
    limit: float | None = None,
) -> Spent:
    """Run ``command`` with what it says going to ``log``; raises :class:`Failed` unless its exit code is one of
    ``accepted``, and when it has not ended after ``limit`` seconds.

    A process counts its caller's memory as its own until it has started its program, so the caller has to stay small:
    nothing here or above imports torch.
    """
    with open(log, "wb") as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        timer = threading.Timer(limit or 0.0, process.kill)
        if limit is not None:
            timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if limit is not None and process.returncode < 0 and seconds >= limit:
        raise Failed(f"given up after {seconds:.0f} s")
    if process.returncode not in accepted:
        last = log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
        raise Failed(f"{' '.join(command)}\nexit code {process.returncode}\n{last}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Spent(seconds, usage.ru_maxrss * unit, time.time())
