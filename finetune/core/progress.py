"""What is under way in a running study: phases, and the events that are told of it; `core/shown.py` draws them.

Whatever may take longer than two seconds is a phase: ``with phase("loading the model")``, or, where it has parts,
``track(batches, "scoring")``. Phases may lie inside each other. The innermost one that has lasted long enough is shown,
so that short ones do not flicker; a thread looks for it, so that it is shown while the work itself has no time to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from finetune.core.errors import ListenerFailed, StudyEnded
from finetune.core.launched import rank
from finetune.core.signals import stop_here

if TYPE_CHECKING:
    from finetune.core.events import Event

T = TypeVar("T")

PART = 1000
"""Rows of data that are worked on at once: tens of milliseconds."""

TICK = 0.25
"""Seconds between two looks at what is to be shown."""


_moves = 0


def moves() -> int:
    """Count the steps of all phases of this process so far: a sign that it moves."""
    return _moves


class Phase:
    """Something under way: what it is, and how far it has come."""

    def __init__(self, title: str, total: int | None, progress: Progress):
        self.title, self.total, self.progress = title, total, progress
        """``total`` is in steps; None: there is nothing to count."""
        self.begun = progress.clock()
        self.done, self.note = 0, ""
        self.first: tuple[float, int] | None = None
        """When the first step was seen, and which: a resumed phase does not begin at 0."""
        self.announced = False
        self.inside: set[str] = set()
        """Titles of the phases inside it that have been announced."""

    def step(self, done: int, note: str = "") -> None:
        """Note that ``done`` steps are behind us."""
        global _moves
        _moves += 1
        self.done, self.note = done, note
        if self.first is None:
            self.first = self.progress.clock(), done
        self.progress.step(done, note)

    @property
    def far(self) -> str:
        """Say how far it is: in steps, or by the time it has taken where their number is not known."""
        elapsed = timedelta(seconds=round(self.progress.clock() - self.begun))
        return f"{elapsed} so far" if self.total is None else f"{self.done}/{self.total}"

    @property
    def left(self) -> str:
        """Estimate how long it will still take, from the steps that were seen; empty while that is not known."""
        begun, first = self.first or (0.0, self.done)
        if self.total is None or self.done <= first:
            return ""
        seconds = (self.progress.clock() - begun) / (self.done - first) * (self.total - self.done)
        return f"{timedelta(seconds=round(seconds))} left"


class Progress:
    """Keeps the phases under way and shows nothing: for tests, and for all processes but the first.

    Within the context it is what :func:`phase` and :func:`track` of this thread talk to.
    """

    after = 2.0
    """Seconds from which a phase is shown."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, on_event: Callable[[Event], None] | None = None
    ) -> None:
        self.clock = clock
        self.listeners: list[Callable[[Event], None]] = [] if on_event is None else [on_event]
        """What is called with every event."""
        self.phases: list[Phase] = []
        """From the outermost to the innermost."""
        self._lock = threading.RLock()
        self._tokens: list[Token[Progress]] = []
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Progress:
        self._tokens.append(_current.set(self))
        if self._ticker is None and type(self).look is not Progress.look:
            self._over.clear()
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *_: Any) -> None:
        _current.reset(self._tokens.pop())
        if not self._tokens:
            self.close()

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            self.look()

    @contextmanager
    def phase(self, title: str, total: int | None = None) -> Iterator[Phase]:
        """A phase of ``total`` steps, where they can be counted, for as long as the context is open."""
        begun = Phase(title, total, self)
        with self._lock:
            self.phases.append(begun)
        self.start(title, total)
        try:
            yield begun
        finally:
            with self._lock:  # with those inside it that an exception has left open
                del self.phases[self.phases.index(begun) if begun in self.phases else len(self.phases) :]

    def shown(self) -> Phase | None:
        """The innermost phase that has lasted long enough."""
        now = self.clock()
        with self._lock:
            return next((each for each in reversed(self.phases) if now - each.begun >= self.after), None)

    def tell(self, event: Event) -> None:
        """Let those that listen know; nobody does in all processes but the first."""
        if rank() != 0:
            return
        for listen in self.listeners:
            try:
                listen(event)
            except StudyEnded:
                raise
            except Exception as error:  # a program's own, which must not pass for a run's
                raise ListenerFailed(f"on_event failed on a {type(event).__name__}: {error}") from error

    def say(self, text: str) -> None:
        """One line that stays."""

    def came(self, line: str) -> None:
        """Say in one line what a run came to."""
        self.say(line)

    def other(self, name: str, at: Sequence[Any] | None) -> None:
        """Hear how far the process called ``name`` is: title, steps done, steps in all or None, note; None: it has
        ended."""

    def other_says(self, name: str, line: str) -> None:
        """Hear the same in words, now and then."""

    def start(self, title: str, total: int | None) -> None:
        """Hear of every phase that begins."""

    def step(self, done: int, note: str) -> None:
        """Hear of every step of the phases."""

    def look(self) -> None:
        """Show what is to be shown now."""

    def close(self) -> None:
        """Stop showing anything."""
        self._over.set()
        if self._ticker is not None:
            self._ticker.join()
            self._ticker = None


_current: ContextVar[Progress] = ContextVar("progress", default=Progress())  # noqa: B039 - it shows nothing


def phase(title: str, total: int | None = None) -> Any:
    """A phase of what this thread does, as a context: see :meth:`Progress.phase`."""
    return _current.get().phase(title, total)


def say(text: str) -> None:
    """Show one line that stays, about what this thread does."""
    _current.get().say(text)


def parts(rows: int, title: str, size: int = PART) -> Iterator[range]:
    """Yield ranges of ``size`` rows up to ``rows``, as a phase that counts them; stops as :func:`track` does."""
    with phase(title, rows) as under_way:
        for start in range(0, rows, size):
            yield range(start, min(start + size, rows))
            under_way.step(min(start + size, rows))
            stop_here(title)


def track(items: Collection[T], title: str) -> Iterator[T]:
    """The ``items`` one by one, as a phase; between two of them a request to stop takes effect.

    Raises :class:`~finetune.core.errors.Interrupted` then. For work that every process does alone: what processes do
    together is stopped together (:meth:`finetune.core.runtime.Runtime.track`).
    """
    with phase(title, len(items)) as under_way:
        for number, item in enumerate(items, start=1):
            yield item
            under_way.step(number)
            stop_here(title)
