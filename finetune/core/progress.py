"""Progress of a running study, as a person sees it: a live line on a terminal, plain lines everywhere else.

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
    from rich.console import Console

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
        self.clock, self.on_event = clock, on_event
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
        """Let the program that listens know; nobody does in all processes but the first."""
        if self.on_event is not None and rank() == 0:
            try:
                self.on_event(event)
            except StudyEnded:
                raise
            except Exception as error:  # a program's own, which must not pass for a run's
                raise ListenerFailed(f"on_event failed on a {type(event).__name__}: {error}") from error

    def say(self, text: str) -> None:
        """One line that stays."""

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


class LineProgress(Progress):
    """For logs and pipes: a line when a phase turns out to be long, and then at most every ``every`` seconds."""

    def __init__(self, console: Console, every: float = 30.0, clock: Callable[[], float] = time.monotonic):
        super().__init__(clock)
        self.console, self.every, self.last = console, every, -every

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def other_says(self, name: str, line: str) -> None:
        self.say(f"{name} · {line}")

    def look(self) -> None:
        with self._lock:
            found, now = self.shown(), self.clock()
            if found is None:
                return
            runtime = self.phases[self.phases.index(found) - 1] if found is not self.phases[0] else None
            # What comes again and again inside another phase, such as a validation, is announced once.
            known = found.announced or (runtime is not None and found.title in runtime.inside)
            if known and now - self.last < self.every:
                return
            found.announced, self.last = True, now
            if runtime is not None:
                runtime.inside.add(found.title)
            line = " · ".join(filter(None, [f"{found.title}: {found.far}", found.note, found.left]))
        self.show(line)

    def show(self, line: str) -> None:
        """Show a line about a phase."""
        self.say(line)


class LiveProgress(Progress):
    """For terminals: one live line with a bar, and the lines that stay above it."""

    after = 1.0

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        super().__init__(clock)
        # A narrow terminal keeps what changes: it cuts titles and notes, and lets the bar go.
        bar = 20 if console.width >= 110 else 0
        note = len("loss 0.123 · 12,345 tokens/s" if console.width >= 80 else "loss 1.000 …")
        title = max(console.width - bar - note - len(" 12345/12345  1:23:45 "), 8)
        self.bar = Bar(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=title), markup=False),
            *([BarColumn(bar_width=bar)] if bar else []),
            TextColumn("{task.fields[far]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, max_width=note), markup=False),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self.on_line: tuple[Phase, Any] | None = None
        """The phase that is shown, and the bar's name for it."""
        self.others: dict[str, Any] = {}
        """The bar's names for other processes, by theirs."""

    def say(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)

    def other(self, name: str, at: Sequence[Any] | None) -> None:
        with self._lock:
            if at is None:
                if name in self.others:
                    self.bar.remove_task(self.others.pop(name))
                return
            title, done, total, note = at
            if name not in self.others:
                self.others[name] = self.bar.add_task(name, total=None, far="", note="")
            far = "" if total is None else f"{done}/{total}"
            facts = {"description": f"{name}  {title}", "completed": done, "note": note, "far": far}
            self.bar.update(self.others[name], total=total, **facts)

    def look(self) -> None:
        with self._lock:
            found = None if self.others else self.shown()  # which are what it waits for
            if self.on_line is not None and self.on_line[0] is not found:
                self.bar.remove_task(self.on_line[1])
                self.on_line = None
            if self.others:
                self.bar.start()
                self.bar.refresh()
                return
            if found is None:
                self.bar.stop()
                return
            facts: dict[str, Any] = {"completed": found.done, "note": found.note, "far": found.far}
            if self.on_line is None:
                self.on_line = found, self.bar.add_task(found.title, total=found.total, **facts)
            self.bar.update(self.on_line[1], **facts)
            self.bar.start()
            self.bar.refresh()

    def close(self) -> None:
        super().close()
        self.bar.stop()


def make_progress(console: Console) -> Progress:
    """Make a live line on a terminal that can move its cursor, else plain lines; nothing in processes but the first."""
    if rank() != 0:
        return Progress()
    return LiveProgress(console) if console.is_terminal and not console.is_dumb_terminal else LineProgress(console)
