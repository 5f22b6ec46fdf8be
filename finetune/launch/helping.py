"""A process that another has started, beside others, to do some of a study's runs: what it does, and how it tells."""

from __future__ import annotations

import json
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any, TextIO

from finetune.core.events import Event, to_json
from finetune.core.launched import rank
from finetune.core.progress import Progress
from finetune.core.shown import LineProgress
from finetune.core.signals import end_with_parent


def help_with(args: Namespace) -> None:
    """Do some of the runs of a study that another process has opened, and tell that one how it goes."""
    end_with_parent(signal.SIGTERM)  # so that what can be saved is
    with SentProgress(sys.stdout) if rank() == 0 else Progress() as progress:
        from finetune.recipe import load
        from finetune.study.running import help_study
        from finetune.study.sharing import Helper

        helper = Helper(*map(int, args.helper.split(":")))
        help_study(load(args.recipe, args.overrides), args.output, progress, args.only, helper)


class SentProgress(LineProgress):
    """For a process that another one has started to help it: all is sent there, a line of JSON for each thing."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        from rich.console import Console

        super().__init__(Console(file=stream), clock=clock)
        self.stream, self._sent = stream, list[Any]()

    def say(self, text: str) -> None:
        self._send({"say": text})

    def came(self, line: str) -> None:
        self._send({"came": line})

    def tell(self, event: Event) -> None:
        super().tell(event)
        self._send({"event": to_json(event)})

    def show(self, line: str) -> None:
        self._send({"line": line})

    def look(self) -> None:
        found = self.shown()
        at = [] if found is None else [found.title, found.done, found.total, found.note]
        if at and at != self._sent:
            self._sent = at
            self._send({"at": at})
        super().look()

    def _send(self, message: dict[str, Any]) -> None:
        with self._lock:
            print(json.dumps(message), file=self.stream, flush=True)
