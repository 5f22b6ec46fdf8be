"""The table of a whole study while it runs: variants × seeds, each run's score as it arrives, and the time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from finetune.core.events import Event, RunFinished, RunStarted, Step, StudyFinished, StudyOpened
from finetune.core.numbers import NONE
from finetune.metrics import unit

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

    from finetune.core.progress import Progress
    from finetune.report.terminal import FittingTable

WAITING = "·"

MOST_LINES = 12
"""Variants that are shown one by one; of more, those that have begun and are not done come first."""


def put_above(progress: Progress, processes: int) -> None:
    """Have a study's table drawn above the live line, where there is one; ``processes`` work at the study at once."""
    from finetune.core.shown import LiveProgress

    if isinstance(progress, LiveProgress):
        table = LiveTable(processes)
        progress.listeners.append(table)
        progress.above = table.drawn


class LiveTable:
    """Listens to a study's events, and draws what they have come to so far.

    ``processes`` work at it at once, by which the time left is divided.
    """

    def __init__(self, processes: int = 1, clock: Callable[[], float] = time.monotonic):
        self.processes, self.clock = processes, clock
        self.opened: StudyOpened | None = None
        self.over = False
        self.finished: dict[tuple[str, int], RunFinished] = {}
        self.begun: dict[tuple[str, int], float] = {}
        """When each run that is under way began."""
        self.together: dict[tuple[str, int], int] = {}
        """How many runs each of them is trained side by side with, itself counted."""
        self.epochs: dict[tuple[str, int], float] = {}
        self.seeds: list[int] = []
        """Those that are asked for; by a rule, as many as it may come to."""
        self._lock = threading.Lock()  # it is drawn by another thread than the one that works

    def __call__(self, event: Event) -> None:
        """Take in what has happened."""
        with self._lock:
            self._hear(event)

    def _hear(self, event: Event) -> None:
        if isinstance(event, StudyOpened):
            self.opened, self.seeds = event, list(event.seeds)
            for result in event.results:
                self._take(result)
        elif isinstance(event, StudyFinished):
            self.over = True
        elif event.seed is None:  # a stage, which is no run
            return
        elif isinstance(event, RunStarted):
            self.begun[event.variant, event.seed] = self.clock()
            self.together[event.variant, event.seed] = event.together
            self.finished.pop((event.variant, event.seed), None)  # an error that is tried again
        elif isinstance(event, Step):
            self.epochs[event.variant, event.seed] = event.epoch
        elif isinstance(event, RunFinished):
            self._take(event)

    def _take(self, result: RunFinished) -> None:
        if result.seed is not None:
            self.finished[result.variant, result.seed] = result
            self.begun.pop((result.variant, result.seed), None)

    def drawn(self) -> RenderableType | None:
        """Draw it; None before a study is open, and when it is over and has its own table."""
        return None if self.opened is None or self.over else self

    def runs(self) -> list[tuple[str, int]]:
        """List the variants and seeds of the runs that are asked for."""
        assert self.opened is not None
        return self.opened.asked or [(variant, seed) for variant in self.opened.variants for seed in self.seeds]

    def seconds_left(self) -> float | None:
        """Estimate how long all will still take, from the runs of the variant that are done, else from all that are;
        None while there are none. Of runs side by side each takes its share of their time, as in their results."""
        assert self.opened is not None
        known: dict[str, list[float]] = {}
        for (variant, _), result in self.finished.items():
            if result.seconds is not None:
                known.setdefault(variant, []).append(result.seconds)
        if not known:
            return None
        usual, now, left = fmean(map(fmean, known.values())), self.clock(), 0.0
        for run in self.runs():
            each = fmean(known.get(run[0], [usual]))
            if run in self.begun:
                left += max(each - (now - self.begun[run]) / self.together[run], 0.0)
            elif run not in self.finished:
                left += each
        return left / self.processes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        with self._lock:
            drawn = list(self._parts(console, options))
        yield from drawn

    def _parts(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        assert self.opened is not None
        by_seed = self._table(seeds=True)
        yield by_seed if by_seed.fits(console, options) else self._table(seeds=False)
        runs = self.runs()
        done, every = sum(run in self.finished for run in runs), len(runs)
        left = self.seconds_left()
        words = [f"{done} of {every} runs", unit(self.opened.headline.rpartition("/")[2]).heading]
        if left is not None and done < every:
            words.append(f"{timedelta(seconds=round(left))} left")
        yield Text(" · ".join(words), style="italic", no_wrap=True, overflow="ellipsis")

    def _table(self, seeds: bool) -> FittingTable:
        """``seeds``: with a column for each; else with how many are done."""
        from finetune.report.terminal import FittingTable

        assert self.opened is not None
        shown = self.opened.variants
        if len(shown) > MOST_LINES:
            shown = sorted(shown, key=self._done_and_waiting)[:MOST_LINES]
        rows = [self._by_seed(name) if seeds else self._in_all(name) for name in shown]
        return FittingTable(rows, [] if seeds else ["SD", "now"])

    def _done_and_waiting(self, variant: str) -> int:
        """Rank variants: under way, then done, then not begun."""
        if any(name == variant for name, _ in self.begun):
            return 0
        return 1 if any(name == variant for name, _ in self.finished) else 2

    def _scores(self, variant: str) -> list[float]:
        assert self.opened is not None
        found = (self.finished[key].scores.get(self.opened.headline) for key in self.finished if key[0] == variant)
        return [score for score in found if score is not None]

    def _by_seed(self, variant: str) -> dict[str, str | Text]:
        scores = self._scores(variant)
        mean = self._number(fmean(scores)) if scores else ""
        return {"variant": variant, **{f"{seed}": self._cell(variant, seed) for seed in self.seeds}, "mean": mean}

    def _in_all(self, variant: str) -> dict[str, str | Text]:
        scores = self._scores(variant)
        runs = [seed for seed in self.seeds if (variant, seed) in self.finished]
        now = [f"{seed}: {self._far((variant, seed))}" for seed in self.seeds if (variant, seed) in self.begun]
        return {
            "variant": variant,
            "runs": f"{len(runs)}/{len(self.seeds)}",
            "mean": self._number(fmean(scores)) if scores else "",
            "SD": self._number(stdev(scores)) if len(scores) > 1 else "",
            "now": now[0] if now else "",
        }

    def _cell(self, variant: str, seed: int) -> str | Text:
        from rich.text import Text

        key = variant, seed
        if key in self.begun:
            return Text(self._far(key), style="bold")
        if key not in self.finished:
            return Text(WAITING, style="dim") if key in self.runs() else ""
        result = self.finished[key]
        assert self.opened is not None
        score = result.scores.get(self.opened.headline)
        number = self._number(score) if score is not None else NONE
        if result.status == "finished":
            return number
        return Text(f"{number} {result.status}", style="bold red")

    def _far(self, key: tuple[str, int]) -> str:
        return f"epoch {self.epochs[key]:.1f}" if key in self.epochs else "begun"

    def _number(self, score: float) -> str:
        assert self.opened is not None
        return unit(self.opened.headline.rpartition("/")[2]).number(score)
