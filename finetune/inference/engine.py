"""One thread that does what many ask for: what can be done together is done together, the rest in turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

TOGETHER = 16
"""Jobs that are done at once, at most."""


class Full(Exception):
    """As many are waiting as may."""


class Closed(Exception):
    """Nothing new is begun any more."""


@dataclass
class Job:
    """Something to do, and what comes of it."""

    key: Hashable
    """Jobs with the same one can be done together."""
    what: Any
    result: Future[Any] = field(default_factory=Future)


class Engine:
    """Does jobs in a thread of its own, in the order in which they came."""

    def __init__(self, work: Callable[[Sequence[Any]], Sequence[Any]], waiting: int):
        """``work`` does several jobs with the same key, and gives the result of each; ``waiting``: how many may wait
        beside those that are being done."""
        self._work, self._most = work, waiting
        self._jobs: deque[Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        self.taken = 0
        """Jobs that were taken so far."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Count the jobs that wait."""
        return len(self._jobs)

    @property
    def closed(self) -> bool:
        return self._closed

    def submit(self, key: Hashable, what: Any) -> Future[Any]:
        """Ask for a job. Raises Full and Closed."""
        job = Job(key, what)
        with self._change:
            if self._closed:
                raise Closed
            if len(self._jobs) >= self._most:
                raise Full
            self._jobs.append(job)
            self.taken += 1
            self._change.notify()
        return job.result

    def refuse(self) -> None:
        """Take no new jobs; those that are there are done."""
        with self._change:
            self._closed = True
            self._change.notify()

    def close(self, seconds: float | None = None) -> None:
        """Do what is there, and end; ``seconds``: how long that may take."""
        self.refuse()
        self._thread.join(seconds)

    def _next(self) -> list[Job]:
        """Wait for jobs, and take the first with all that can be done together with it; none: it is over."""
        with self._change:
            self._change.wait_for(lambda: bool(self._jobs) or self._closed)
            if not self._jobs:
                return []
            first = self._jobs.popleft()
            others = [job for job in self._jobs if job.key == first.key][: TOGETHER - 1]
            for job in others:
                self._jobs.remove(job)
            return [first, *others]

    def _run(self) -> None:
        while jobs := self._next():
            self._do([job for job in jobs if job.result.set_running_or_notify_cancel()])

    def _do(self, jobs: Sequence[Job]) -> None:
        """Do several jobs; where that fails, each by itself, so that one does not spoil the others."""
        if not jobs:
            return
        try:
            found = self._work([job.what for job in jobs])
        except Exception as error:  # whatever it is, whoever has asked is told
            if len(jobs) > 1:
                for job in jobs:
                    self._do([job])
            else:
                jobs[0].result.set_exception(error)
            return
        for job, result in zip(jobs, found, strict=True):
            job.result.set_result(result)
