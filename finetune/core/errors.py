"""Every error a person can meet: where it is, what was found, and what to do about it."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One mistake in what a person gave us.

    ``where`` is ``file:line``; ``path`` is the dotted path inside the recipe. Either may be unknown, for
    instance when a data file is wrong rather than the recipe that names it.
    """

    found: str
    advice: str = ""
    path: str | None = None
    where: str | None = None

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.path) if part)
        message = f"{place}: {self.found}" if place else self.found
        return f"{message}\n    {self.advice}" if self.advice else message


class FinetuneError(Exception):
    """The root of everything we raise on purpose; ``exit_code`` is what the process returns."""

    exit_code = 1


class StudyEnded(FinetuneError):
    """Ends the whole study. Any other error ends one run, and is recorded as that run's result."""


class InputError(StudyEnded):
    """Bad input: nothing was started. Holds every problem that was found, not only the first."""

    exit_code = 2

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[Problem]]]:
        """From another process it comes back as it was raised there."""
        return type(self), (self.problems,)

    def located(self, locate: Callable[[str], str | None]) -> InputError:
        """The same error with ``file:line`` filled in by ``locate(dotted path)`` where it was missing."""
        return InputError(
            replace(problem, where=locate(problem.path)) if problem.path and not problem.where else problem
            for problem in self.problems
        )


class DiskFull(StudyEnded):
    """No room to write, which every later run would meet too."""


class NotWritable(StudyEnded):
    """A study's folder that took files before, and no longer does."""


class Damaged(StudyEnded):
    """A file of ours that no longer says what was written: it was cut short, say."""

    def __init__(self, path: object, why: object):
        super().__init__(
            f"{path} is damaged ({why}): restore it from a copy, or remove it, and run the same command again, which "
            "makes what it held anew"
        )


class ListenerFailed(StudyEnded):
    """A program's own `on_event` raised an exception, which is its cause."""


class SameRun(FinetuneError):
    """Two seeds of a variant that start as the same run, so that counting both would be counting one twice."""


class Interrupted(StudyEnded):
    """A person or the scheduler asked us to stop; the same command resumes."""

    exit_code = 130


def bad_input(path: str | None, found: str, advice: str = "") -> InputError:
    """An :class:`InputError` with one problem, which is what most places that find a mistake need."""
    return InputError(Problem(found=found, advice=advice, path=path))


def message_of(error: BaseException) -> str:
    """What an exception says; of one that says nothing, its type. What a KeyError says is the key alone."""
    said = str(error).strip()
    return f"there is no {said}" if isinstance(error, KeyError) and said else said or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, never empty."""
    return message_of(error).splitlines()[0]


def disk_full(error: BaseException) -> bool:
    """Tell whether an error says that a disk, or one's share of it, is full; some libraries wrap the system's own."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    said = "No space left" in str(error) or any(f"(os error {number})" in str(error) for number in full)  # from Rust
    return getattr(error, "errno", None) in full or said


def not_writable(error: BaseException, folder: Path) -> str | None:
    """Say why, where an error says that files in ``folder`` can no longer be written; None: it says something else."""
    for number in (errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM):
        said = os.strerror(number)
        if f"{said} (os error {number})" in str(error):  # as libraries in Rust wrap it
            return said
        if isinstance(error, OSError) and error.errno == number and error.filename is not None:
            return said if Path(os.fsdecode(error.filename)).absolute().is_relative_to(folder.absolute()) else None
    return None


MOST_CHOICES, FEW_CHOICES = 40, 12
"""Choices that are all listed; and how many of more."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Advise ``did you mean 'rank'?``, followed by the choices, or these alone when nothing is near; of very many,
    those that are most like ``word``."""
    known = sorted(choices)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    shown = known
    if len(known) > MOST_CHOICES:
        shown = [*difflib.get_close_matches(word, known, n=FEW_CHOICES, cutoff=0.0), f"… ({len(known)} in all)"]
    listing = f"choose from: {', '.join(shown)}" if known else "there is nothing to choose from"
    return f"did you mean '{near[0]}'? ({listing})" if near else listing
