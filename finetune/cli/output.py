"""Output of the verbs: problems, results, and text that fits the terminal."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from finetune.core.events import Event, to_json
from finetune.core.launched import launched
from finetune.core.run_dir import StudyDir
from finetune.core.screen import raw, screened

if TYPE_CHECKING:
    from rich.console import Console

    from finetune.core.errors import Problem
    from finetune.core.progress import Progress
    from finetune.results.schema import Results
    from finetune.runner.result import StudyOutcome

NARROWEST = 40
PIPED = 100
"""Columns of what is not written to a terminal."""


def columns() -> int:
    """Give the width that a line may have, in characters."""
    terminal = shutil.get_terminal_size(fallback=(PIPED, 24)).columns
    return max(NARROWEST, terminal)


def console(stream: TextIO, **options: Any) -> Console:
    """What draws on a terminal, if ``stream`` is one."""
    from rich.console import Console

    return Console(file=raw(stream), **options)


def wrapped(text: str, indent: str = "", hanging: str = "") -> str:
    """``text`` in lines that fit; paths and numbers are never broken, so that they can be copied."""
    return textwrap.fill(
        screened(text),
        width=columns(),
        initial_indent=indent,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def fitted(rows: Sequence[Mapping[str, str]], dispensable: Sequence[str] = (), width: int | None = None) -> list[str]:
    """Lines of a table, the first column to the left, without so many of the ``dispensable`` ones as do not fit."""
    from rich.console import Console

    from finetune.report.terminal import FittingTable

    console = Console(width=width or columns(), color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(FittingTable(rows, dispensable))
    return [line.rstrip() for line in captured.get().splitlines()]


def live_progress(stream: TextIO | None = None) -> Progress:
    """Show what is under way on ``stream``; None: the output."""
    from finetune.core.shown import make_progress

    return make_progress(console(stream or sys.stdout))


def print_event(event: Event) -> None:
    """Write what happens in a study as a line of JSON."""
    print(json.dumps(to_json(event)), flush=True)


@contextmanager
def shown_aside(title: str) -> Iterator[None]:
    """Show what takes long within the context on the error stream: the output has what was asked for."""
    from finetune.core.shown import make_progress

    with make_progress(console(sys.stderr)) as progress, progress.phase(title):
        yield


def print_problems(problems: Sequence[Problem]) -> None:
    """Every problem on stderr, in colour only on a terminal, and how many there are."""
    from rich.text import Text

    shown = console(sys.stderr, highlight=False, soft_wrap=True)
    for problem in problems:
        place = ": ".join(part for part in (problem.where, problem.path) if part)
        message = wrapped(f"{place}: {problem.found}" if place else problem.found, hanging="  ")
        line = Text(message)
        line.stylize("bold", 0, len(place))
        shown.print(line)
        if problem.advice:
            shown.print(Text(wrapped(problem.advice, "    ", "    "), style="green"))
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}; nothing was started"
    shown.print(Text(count, style="red"))


def print_results(study: Path, results: Results) -> None:
    """Show a study's table and where its report lies."""
    from finetune.report.terminal import table

    console(sys.stdout).print(table(results))
    print(f"report: {StudyDir(study).report / 'index.html'}")


def finish(outcome: StudyOutcome, quiet: bool = False) -> int:
    """Show what a study came to, each failed run and baseline with its reason; gives the exit code, and ``quiet``
    nothing else."""
    if outcome.speaks and not quiet:
        print_results(outcome.folder, outcome.results)
        for run in outcome.failed:
            which = f"seed {run['seed']}" if "seed" in run else run["kind"]
            print(wrapped(f"{run['variant']}, {which}: {run['status']}: {run['reason']}", hanging="  "))
        for each in outcome.failed_baselines:
            print(wrapped(f"baseline {each['name']}: {each['status']}: {each['reason']}", hanging="  "))
    return code_of(bool(outcome.failed or outcome.failed_baselines))


def code_of(failed: bool) -> int:
    """Give 1 where something ``failed``, else 0. To a launcher a process that has written its results is done, whatever
    they are: it would show a traceback."""
    return 1 if failed and not launched() else 0
