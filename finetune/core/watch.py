"""Watches over processes that do one run together: when one of them no longer moves, the others name it and end.

Whoever waits for a process that hangs would wait for ever, or until the library that waits gives up, which says nothing
of who it was. Each process counts its moves, and tells how many it has come to, in the store by which they have met.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import Any

from finetune.core import progress
from finetune.core.errors import bad_input

VARIABLE = "FINETUNE_PROCESS_TIMEOUT"
SECONDS = 1800.0
"""Default of the variable. A process that works alone, such as the first one when it writes a large model, is not
known to hang before it has shown nothing for so long."""

LOOKS = 20
"""Looks at the others within the time-out."""


def patience() -> float:
    """Give the seconds without a sign after which a process counts as one that hangs. Raises InputError."""
    said = os.environ.get(VARIABLE, "")
    try:
        found = float(said or SECONDS)
    except ValueError:
        found = 0.0
    if not found > 0:
        raise bad_input(None, f"{VARIABLE} is '{said}'", "write seconds, such as 1800")
    return found


SUSPENDED = 5
"""Times as long as it should be that a time between two looks says so."""


class Watch:
    """This process's count of what all of them do together, and a thread that looks at theirs."""

    def __init__(self, store: Any, rank: int, processes: int, seconds: float):
        self.store, self.rank, self.processes, self.seconds = store, rank, processes, seconds
        self.count = 0
        self.name = f"process {rank} (host {socket.gethostname()}, pid {os.getpid()})"
        self._seen: dict[int, tuple[list[str], float]] = {}
        """Of each process: what it has told last, and when that was new."""
        self._over = threading.Event()
        self._looked = time.monotonic()
        self._tell()

    def start(self) -> None:
        """Begin to look; all processes have told something by now."""
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Look no longer."""
        self._over.set()

    def move(self) -> None:
        """Note that this process is about to do what all of them do together."""
        self.count += 1

    def _tell(self) -> None:
        self.store.set(f"watch/{self.rank}", f"{self.count}|{progress.moves()}|{self.name}")

    def _look(self) -> None:
        while not self._over.wait(self.seconds / LOOKS):
            try:
                self._tell()
                found = self.missing()
            except RuntimeError:  # whoever kept the store is gone, and whoever started us ends us if it was too early
                return
            if found is not None and not self._over.is_set():
                print(f"finetune: {found}: this process ends, too", file=sys.stderr, flush=True)
                os._exit(1)  # the thread that waits cannot be woken

    def missing(self) -> str | None:
        """Say which process hangs: it is behind this one, and nothing of it or of this one has moved for long."""
        now, told = time.monotonic(), {}
        if now - self._looked > SUSPENDED * self.seconds / LOOKS:
            self._seen = {}  # this process itself has been suspended, and the others perhaps with it
        self._looked = now
        for rank in range(self.processes):
            told[rank] = self.store.get(f"watch/{rank}").decode().split("|", 2)
            if rank not in self._seen or self._seen[rank][0] != told[rank]:
                self._seen[rank] = told[rank], now
        still = {rank for rank, (_, since) in self._seen.items() if now - since >= self.seconds}
        if self.rank not in still:
            return None
        behind = sorted(rank for rank in still if int(told[rank][0]) < self.count)
        if not behind:
            return None
        return f"{told[behind[0]][2]} has not moved for {now - self._seen[behind[0]][1]:.0f} s"
