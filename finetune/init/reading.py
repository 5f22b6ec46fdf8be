"""Reads the file that a recipe is to be made for, and what lies beside it."""

from __future__ import annotations

import csv
import io
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
    if not known and os.path.isdir(path) and (inner := _training_file(Path(path))):
        path = str(inner)
    options, notes = _readable({"path": path})
    data = _read(options)
    beside = {} if known else {part: {**options, "path": str(file)} for part, file in _beside(Path(path)).items()}
    for part, other in list(beside.items()):
        if set(_read(other).column_names) != set(data.column_names):
            notes.append(f"{Path(other['path']).name} lies beside it and has other columns: it is not used")
            del beside[part]
    return Found(options, data, beside, tuple(notes))


def _read(options: dict[str, Any]) -> Dataset:
    from finetune.data.sources import read

    return read(Source(**options), AT, 0)


def _readable(options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Give the options under which the source can be read: with names where it has no header line, and with the
    encoding that its bytes speak for."""
    notes: list[str] = []
    if names := _missing_header(options["path"]):
        options = {**options, "names": names}
        notes.append(f"its first line is an example and no header: columns are called {', '.join(names)}")
    for _ in range(2):
        try:
            _read(options)
        except InputError as error:
            said = " ".join(problem.advice for problem in error.problems)
            found = re.search(r"`?(encoding|encoding_errors|format): ([\w-]+)", said)
            if found is None or found[1] in options:
                raise
            options = {**options, found[1]: found[2]}
            notes.append(f"{error.problems[0].found}: {found[1]} is {found[2]}")
        else:
            return options, notes
    _read(options)
    return options, notes


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
WORDY = 6
"""Words from which on a heading reads like an example."""


def _missing_header(path: str) -> list[str]:
    """Name the columns of a delimited file whose first line is an example; none where it is a header.

    A heading is no number where the column below has numbers, does not come again as a value, and is not a sentence.
    """
    known = named_by(path)
    if known is None or not known.delimited or not os.path.isfile(path):
        return []
    from finetune.data.packed import open_file

    with open_file(Path(path)) as file:
        text = bytes(file.read(1 << 18)).decode("utf-8", "replace")
    tabs = known.name == "tsv"
    rows = list(csv.reader(io.StringIO(text, newline=""), "excel-tab" if tabs else "excel", quoting=3 if tabs else 0))
    rows = [row for row in rows if row][:-1][:400] or [row for row in rows if row]
    if len(rows) < 2:
        return []
    heading, body = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    columns = list(zip(*body, strict=True))
    numeric = any(
        NUMBER.fullmatch(name.strip()) and all(NUMBER.fullmatch(value.strip()) for value in column if value.strip())
        for name, column in zip(heading, columns, strict=False)
    )
    again = any(name and column.count(name) > 1 for name, column in zip(heading, columns, strict=False))
    sentence = any(len(name.split()) >= WORDY for name in heading)
    if not (numeric or again or sentence or len({*heading}) < len(heading)):
        return []
    return [f"column_{number}" for number in range(1, len(heading) + 1)]


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
