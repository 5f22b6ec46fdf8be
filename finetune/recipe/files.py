"""Reads a recipe file and the files it extends into one tree."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from finetune.core.errors import InputError, Problem, did_you_mean
from finetune.recipe.tree import Node, Origin, merge, shown
from finetune.recipe.yaml_text import parse


def read_text(path: Path) -> str:
    """The text of a recipe file; raises InputError when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        siblings = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        advice = did_you_mean(path.name, siblings) if siblings else "check the path"
        raise InputError(Problem(f"there is no file {shown(path)}", advice)) from None
    except IsADirectoryError:
        raise InputError(Problem(f"{shown(path)} is a folder", "name a recipe file inside it")) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            Problem("this is not UTF-8 text", "save the recipe as UTF-8", where=f"{shown(path)}:{line}")
        ) from None
    except OSError as error:
        raise InputError(Problem(f"{shown(path)} cannot be read: {error.strerror}")) from None
    if "\0" in text:  # each second character, where it is UTF-16 without a mark
        line = text.count("\n", 0, text.index("\0")) + 1
        found = "there are NUL characters in it, as in UTF-16"
        raise InputError(Problem(found, "save the recipe as UTF-8", where=f"{shown(path)}:{line}"))
    return text


def read_mapping(path: Path, text: str, folder: Path | None) -> tuple[Node, list[Problem]]:
    """The mapping in one YAML file, and the mistakes that still left one; raises InputError when there is none."""
    root, problems = parse(text, lambda line: Origin(f"{shown(path)}:{line}", folder))
    if root is None or root.content is None:
        raise InputError(
            Problem("the file is empty", "write at least model, data, task and strategy", where=shown(path))
        )
    if not root.is_mapping:
        raise InputError(
            Problem("this is not a recipe", "a recipe is a list of `key: value` lines", where=root.origin.where)
        )
    return root, problems


def read(path: Path) -> tuple[str, Node, list[Problem]]:
    """The text of a recipe, and its tree laid over those of the files it extends.

    Every problem is collected; InputError is raised when a file is missing or broken, because what it would have
    said is then unknown. A recipe's `name` is its own: it is not inherited, so that a recipe and the one it
    extends never write into one folder.
    """
    text = read_text(path)
    reader = _Reader()
    root = reader.read(path, text, ())
    if reader.incomplete:
        raise InputError(reader.problems)
    return text, root, reader.problems


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.incomplete = False

    def read(self, path: Path, text: str, chain: tuple[Path, ...]) -> Node:
        """``path``'s tree over what it extends; ``chain`` are the files that led here."""
        root, problems = read_mapping(path, text, path.absolute().parent)
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
        file = Path(os.path.normpath(path.parent / Path(item.content).expanduser()))
        if file.resolve() in [link.resolve() for link in chain]:
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
