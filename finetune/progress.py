"""What a person sees while a study runs: a live line on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


class Progress:
    """Receives what happens and shows nothing: for tests, and for all processes but the first."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def say(self, text: str) -> None:
        """One line that stays."""

    def start(self, title: str, steps: int) -> None:
        """A phase of ``steps`` steps begins."""

    def step(self, done: int, note: str = "") -> None:
        """``done`` steps of the phase are behind us."""

    def close(self) -> None:
        """The phase is over."""


class LineProgress(Progress):
    """For logs and pipes: a line at most every ``every`` seconds."""

    def __init__(self, console: Console, every: float = 30.0):
        self.console, self.every = console, every
        self.title, self.steps, self.last = "", 0, 0.0
        self.begun = (0.0, 0)
        """When the phase began, and at which step: a resumed one does not begin at 0."""

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def start(self, title: str, steps: int) -> None:
        self.title, self.steps, self.last = title, steps, time.monotonic()
        self.begun = (self.last, -1)

    def step(self, done: int, note: str = "") -> None:
        now, (begun, first) = time.monotonic(), self.begun
        if first < 0:
            self.begun = (now, done)
        elif now - self.last >= self.every and done > first:
            self.last = now
            left = timedelta(seconds=round((now - begun) / (done - first) * (self.steps - done)))
            self.say(" · ".join(filter(None, [f"{self.title}: {done}/{self.steps}", note, f"{left} left"])))


class LiveProgress(Progress):
    """For terminals: one live line with a bar, and the lines that stay above it."""

    def __init__(self, console: Console):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        # A narrow terminal keeps what changes: it cuts titles and notes, and lets the bar go.
        bar = 20 if console.width >= 110 else 0
        note = len("loss 0.123 · 12,345 tokens/s" if console.width >= 80 else "loss 1.000 …")
        title = max(console.width - bar - note - len(" 12345/12345  1:23:45 "), 8)
        self.bar = Bar(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=title)),
            *([BarColumn(bar_width=bar)] if bar else []),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, max_width=note)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
        )
        self.bar.start()
        self.phase: Any = None

    def say(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)

    def start(self, title: str, steps: int) -> None:
        if self.phase is not None:
            self.bar.remove_task(self.phase)
        self.phase = self.bar.add_task(title, total=steps, note="")

    def step(self, done: int, note: str = "") -> None:
        if self.phase is not None:
            self.bar.update(self.phase, completed=done, note=note)

    def close(self) -> None:
        self.bar.stop()


def make_progress(console: Console) -> Progress:
    """Live on a terminal, lines otherwise."""
    return LiveProgress(console) if console.is_terminal else LineProgress(console)
