"""Progress as a person sees it: a live line on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from finetune.core.launched import rank
from finetune.core.progress import Phase, Progress
from finetune.core.screen import screened

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress as RichProgress


class LineProgress(Progress):
    """For logs and pipes: a line when a phase turns out to be long, and then at most every ``every`` seconds."""

    def __init__(self, console: Console, every: float = 30.0, clock: Callable[[], float] = time.monotonic):
        super().__init__(clock)
        self.console, self.every, self.last = console, every, -every

    def say(self, text: str) -> None:
        self.console.print(screened(text), highlight=False, markup=False, soft_wrap=True)

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
        from rich.table import Column

        super().__init__(clock)
        self.above: Callable[[], RenderableType | None] | None = None
        """Draws what stands above the live line, such as a table of the whole study."""
        # A narrow terminal keeps what changes: it cuts titles and notes, and lets the bar go.
        bar = 20 if console.width >= 110 else 0
        note = len("loss 0.123 · 12,345 tokens/s" if console.width >= 80 else "loss 1.000 …")
        title = max(console.width - bar - note - len(" 12345/12345  1:23:45 "), 8)
        self.bar = _bar_below(self)(
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
        self.bar.console.print(screened(text), highlight=False, markup=False)

    def came(self, line: str) -> None:
        if self.above is None:  # which shows it
            self.say(line)

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
            facts = {"description": screened(f"{name}  {title}"), "completed": done, "note": screened(note), "far": far}
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
            if found is None and self.above is not None:
                self.bar.start()
                self.bar.refresh()
                return
            if found is None:
                self.bar.stop()
                return
            facts: dict[str, Any] = {"completed": found.done, "note": screened(found.note), "far": found.far}
            if self.on_line is None:
                self.on_line = found, self.bar.add_task(screened(found.title), total=found.total, **facts)
            self.bar.update(self.on_line[1], **facts)
            self.bar.start()
            self.bar.refresh()

    def close(self) -> None:
        super().close()
        self.bar.stop()


def _bar_below(shown: LiveProgress) -> type[RichProgress]:
    """Give the class of bars below what is drawn above them, where anything is."""
    from rich.progress import Progress as RichProgress

    class Below(RichProgress):
        def get_renderables(self) -> Iterator[RenderableType]:
            if shown.above is not None and (drawn := shown.above()) is not None:
                yield drawn
            yield self.make_tasks_table(self.tasks)

    return Below


def make_progress(console: Console) -> Progress:
    """Make a live line on a terminal that can move its cursor, else plain lines; nothing in processes but the first."""
    if rank() != 0:
        return Progress()
    return LiveProgress(console) if console.is_terminal and not console.is_dumb_terminal else LineProgress(console)
