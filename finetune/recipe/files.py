"""Reads a recipe, and the files it extends, into one tree."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.core.errors import InputError, Problem, did_you_mean, message_of
from finetune.core.paths import local_path
from finetune.recipe.tree import Keys, Node, Origin, dotted, merge, shown
from finetune.recipe.yaml_text import dump, parse

Source = Path | str | Mapping[str, Any]
"""A recipe: a file by its path, its YAML text (of more than one line), or the same as a mapping."""

UNNAMED = Path("recipe")
"""What a recipe that is no file goes by; relative paths in it start from the working directory."""


@dataclass(frozen=True)
class Written:
    """A recipe as it was written, its tree laid over those of the files it extends, and what is wrong with it."""

    path: Path
    text: str
    root: Node
    problems: list[Problem]


LONGEST = 1 << 20
"""Bytes that a recipe may have."""


def read_text(path: Path) -> str:
    """The text of a recipe file; raises InputError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            content = file.read(LONGEST + 1)  # a device may have no end
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        siblings = [file.name for file in path.parent.glob("*.y*ml")] if os.path.isdir(path.parent) else []
        advice = did_you_mean(path.name, siblings) if siblings else "check the path"
        raise InputError(Problem(f"there is no file {shown(path)}", advice)) from None
    except IsADirectoryError:
        raise InputError(Problem(f"{shown(path)} is a folder", "name a recipe file inside it")) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            Problem("this is not UTF-8 text", "save the recipe as UTF-8", where=f"{shown(path)}:{line}")
        ) from None
    except (OSError, ValueError) as error:  # ValueError: there is a NUL in its name
        reason = getattr(error, "strerror", None) or message_of(error)
        raise InputError(Problem(f"{shown(path)} cannot be read: {reason}", "check the path")) from None
    if len(content) > LONGEST:
        raise InputError(Problem(f"{shown(path)} has more than {LONGEST:,} bytes", "name a recipe"))
    if "\0" in text:  # each second character, where it is UTF-16 without a mark
        line = text.count("\n", 0, text.index("\0")) + 1
        found = "there are NUL characters in it, as in UTF-16"
        raise InputError(Problem(found, "save the recipe as UTF-8", where=f"{shown(path)}:{line}"))
    return text


def read_mapping(
    path: Path, text: str, folder: Path | None, where: Callable[[int], str] | None = None
) -> tuple[Node, list[Problem]]:
    """The mapping in one YAML text, and the mistakes that still left one; raises InputError when there is none.

    ``where`` says what a line is called; by default after ``path``.
    """
    name = shown(path)
    root, problems = parse(text, lambda line: Origin(where(line) if where else f"{name}:{line}", folder))
    if root is None or root.content is None:
        raise InputError(
            Problem("the recipe is empty", "write at least model, data, task and strategy", where=shown(path))
        )
    if not root.is_mapping:
        raise InputError(
            Problem("this is not a recipe", "a recipe is a list of `key: value` lines", where=root.origin.where)
        )
    return root, problems


def read(source: Source) -> Written:
    """Read a recipe, and the files it extends.

    Every problem is collected; InputError is raised when a file is missing or broken, because what it would have
    said is then unknown. A recipe's `name` is its own: it is not inherited, so that a recipe and the one it
    extends never write into one folder.
    """
    reader = _Reader()
    if isinstance(source, Mapping):
        # Its lines are nobody's: problems are told by their path alone.
        path, text = UNNAMED, dump(_plain(source))
        root = reader.read(path, text, (), where=lambda line: "")
    else:
        is_text = isinstance(source, str) and "\n" in source
        path = UNNAMED if is_text else Path(source)
        text = str(source) if is_text else read_text(path)
        root = reader.read(path, text, ())
    if reader.incomplete:
        raise InputError(reader.problems)
    return Written(path, text, root, reader.problems)


def _plain(source: Mapping[str, Any]) -> Any:
    """The mapping in the types that YAML has; raises InputError with every value that has none."""
    problems: list[Problem] = []

    def convert(value: Any, keys: Keys) -> Any:
        if isinstance(value, Mapping):
            return {str(key): convert(inner, (*keys, str(key))) for key, inner in value.items()}
        if isinstance(value, list | tuple | range):
            return [convert(inner, (*keys, place)) for place, inner in enumerate(value)]
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of NumPy's or torch's
            return value.item()
        if value is None or isinstance(value, str | bool | int | float):
            return value
        found = f"is a {type(value).__name__}, and a recipe holds texts, numbers, true, false, null, lists and sections"
        problems.append(Problem(found, path=dotted(keys)))
        return None

    content = convert(source, ())
    if problems:
        raise InputError(problems)
    return content


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.incomplete = False

    def read(self, path: Path, text: str, chain: tuple[Path, ...], where: Callable[[int], str] | None = None) -> Node:
        """Read the tree of ``path`` over what it extends; ``chain`` are the files that led here."""
        root, problems = read_mapping(path, text, path.absolute().parent, where)
        self.problems += problems
        said = root.child("extends")
        own = root.without("extends")
        if said is None:
            return own
        below: Node | None = None
        for item in said.content if said.is_list else (said,):
            extended = self._extended(item, path, (*chain, path))
            below = extended if below is None or extended is None else merge(below, extended)
        return own if below is None else replace(merge(below.without("name"), own), origin=own.origin)

    def _extended(self, item: Node, path: Path, chain: tuple[Path, ...]) -> Node | None:
        if not isinstance(item.content, str):
            self._fail(item, "must name a recipe file, or a list of them", "write extends: base.yaml")
            return None
        file = Path(os.path.normpath(path.parent / local_path(item.content)))
        if os.path.realpath(file) in map(os.path.realpath, chain):
            circle = " -> ".join(shown(link) for link in (*chain, file))
            self._fail(item, f"goes round in a circle: {circle}", "remove one of these extends")
            return None
        try:
            return self.read(file, read_text(file), chain)
        except InputError as error:
            self.problems += [
                p if p.where else replace(p, path="extends", where=item.origin.where) for p in error.problems
            ]
            self.incomplete = True
            return None

    def _fail(self, item: Node, found: str, advice: str) -> None:
        self.problems.append(Problem(found, advice, path="extends", where=item.origin.where))
        self.incomplete = True
