"""Reads the file that a recipe is to be made for, and what lies beside it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import InputError, bad_input
from finetune.core.paths import PACKAGE
from finetune.data.addresses import is_remote
from finetune.data.formats.base import FORMATS, named_by
from finetune.data.options import HUB, Source
from finetune.init.heading import missing_header, refuse_other_marks

if TYPE_CHECKING:
    from datasets import Dataset

HELD_OUT = {"test": ("test", "eval", "heldout"), "validation": ("validation", "valid", "val", "dev")}
"""Words of file names, by the part of the data that they mean."""
LEARNT = "train"

AT = "data.train"


@dataclass(frozen=True)
class Found:
    """What was read: a source as a recipe writes it, and its rows."""

    options: dict[str, Any]
    """The source's options."""
    data: Dataset
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By part (`test`, `validation`), the source of a file that lies beside it and is called so."""
    notes: tuple[str, ...] = ()
    """What was decided while it was read, and why."""


def find(path: str) -> Found:
    """Read the examples at ``path``, which may be whatever `data.train.path` may be, or a folder with a file of the
    training examples and others beside it.

    Raises:
        InputError: when it is not there, or cannot be read.
    """
    known = is_remote(path) or path.startswith((PACKAGE, HUB))
    hub = path.startswith(HUB)
    name = path.removeprefix(HUB).partition("@")[0].strip("/ ") if hub else path.removeprefix("sqlite:").strip()
    if not name:
        what = "dataset" if hub else "file"
        raise bad_input(f"{AT}.path", f"'{path}' names no {what}", "name a file, a folder, or hub:ORG/NAME")
    if not known and os.path.isdir(path) and (inner := _training_file(Path(path))):
        path = str(inner)
    options, notes, data = _readable({"path": path}, AT)
    beside: dict[str, dict[str, Any]] = {}
    # An encoding is each file's own; a header line is there in all of them, or in none.
    shared = {key: value for key, value in options.items() if key in ("format", "names")}
    for part, file in {} if known else _beside(Path(path)).items():
        try:
            own, told, other = _readable({**shared, "path": str(file)}, f"data.{part}")
        except InputError as error:
            notes.append(f"{file.name} lies beside it and cannot be read: it is not used ({error.problems[0].found})")
            continue
        if set(other.column_names) != set(data.column_names):
            notes.append(f"{file.name} lies beside it and has other columns: it is not used")
            continue
        beside[part] = own
        notes += [f"{file.name}: {note}" for note in told]
    return Found(options, data, beside, tuple(notes))


def _read(options: dict[str, Any], at: str) -> Dataset:
    from pydantic import ValidationError

    from finetune.data.sources import read

    try:
        source = Source(**options)
    except ValidationError as error:
        raise bad_input(f"{at}.path", error.errors()[0]["msg"].removeprefix("Value error, ")) from error
    return read(source, at, 0)


def _readable(options: dict[str, Any], at: str) -> tuple[dict[str, Any], list[str], Dataset]:
    """Give the options under which the source can be read: with names where it has no header line, and with the
    encoding that its bytes speak for; and what was decided, and what was read."""
    notes: list[str] = []
    refuse_other_marks(options["path"], at)
    if "names" not in options and (names := missing_header(options["path"])):
        options = {**options, "names": names}
        notes.append(f"its first line is an example and no header: columns are called {', '.join(names)}")
    for _ in range(2):
        try:
            return options, notes, _read(options, at)
        except InputError as error:
            said = " ".join(problem.advice for problem in error.problems)
            found = re.search(r"`?(encoding|encoding_errors|format): ([\w-]+)", said)
            if found is None or found[1] in options:
                raise
            options = {**options, found[1]: found[2]}
            notes.append(f"{error.problems[0].found}: {found[1]} is {found[2]}")
    return options, notes, _read(options, at)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]


def _ending(file: Path) -> tuple[str, ...]:
    return tuple(file.suffixes)


def _training_file(folder: Path) -> Path | None:
    """Find the file of training examples in a folder that is no data set by itself; None where it is one."""
    if any(each.owns(folder) for each in FORMATS.all().values()):
        return None
    files = sorted(file for file in folder.iterdir() if file.is_file() and named_by(file.name))
    chosen = [file for file in files if LEARNT in _words(file.name)] or (files if len(files) == 1 else [])
    if len(chosen) > 1:
        names = ", ".join(file.name for file in chosen)
        raise bad_input(AT, f"'{folder}' has several files of training examples: {names}", "name one of them")
    if not chosen and files:
        names = ", ".join(file.name for file in files[:8])
        raise bad_input(AT, f"none of the files in '{folder}' is called train", f"name one of them: {names}")
    return chosen[0] if chosen else None


def _beside(path: Path) -> dict[str, Path]:
    """Find files that are called like ``path`` with another part's word in the place of `train`."""
    if not path.is_file() or LEARNT not in _words(path.name):
        return {}
    found: dict[str, Path] = {}
    for file in sorted(path.parent.iterdir()):
        same = file.is_file() and _ending(file) == _ending(path)
        for part, words in HELD_OUT.items() if same else ():
            own = {path.name.lower().replace(LEARNT, word, 1) for word in words}
            if file.name.lower() in own:
                found.setdefault(part, file)
    return found
