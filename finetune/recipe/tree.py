"""A recipe as written: a tree in which every value remembers where it was set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.core.errors import bad_input

Key = str | int
Keys = tuple[Key, ...]

FREE_FORM = frozenset({"columns", "labels"})
"""Sections whose keys are a person's own words, so that a key called `type` names a column or a label, and no
plug-in."""

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Origin:
    """Where a value was set: ``file:line`` or the command line, and the folder its relative paths start from.

    ``folder`` is None for a resolved recipe, whose paths have been made absolute already.
    """

    where: str
    folder: Path | None = None


@dataclass(frozen=True)
class Node:
    """A value of the tree: a mapping of nodes, a tuple of nodes, or a text, number, truth value or None."""

    content: Any
    origin: Origin

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.content, Mapping)

    @property
    def is_list(self) -> bool:
        return isinstance(self.content, tuple)

    def children(self) -> dict[str, Node]:
        """The entries of a mapping; nothing for any other value."""
        return dict(self.content) if self.is_mapping else {}

    def child(self, key: Key) -> Node | None:
        """The value under a key, or of a list under an index (a number, or its text) or an item's `name`, or None."""
        if self.is_mapping:
            return self.content.get(str(key))
        index = list_index(self, key)
        return None if index is None else self.content[index]

    def plain(self) -> Any:
        """The same value as dictionaries, lists and scalars."""
        if self.is_mapping:
            return {key: node.plain() for key, node in self.content.items()}
        return [node.plain() for node in self.content] if self.is_list else self.content

    def walk(self, keys: Sequence[Key]) -> Iterator[Node]:
        """Yield this node, then the node under each key in turn, as far as they exist."""
        node: Node | None = self
        yield self
        for key in keys:
            node = node.child(key) if node is not None else None
            if node is None:
                return
            yield node

    def find(self, keys: Sequence[Key]) -> Node | None:
        """The node at the end of ``keys``, or None."""
        path = list(self.walk(keys))
        return path[-1] if len(path) == len(keys) + 1 else None

    def nearest(self, keys: Sequence[Key]) -> Node:
        """The node at the end of ``keys``, or else the innermost section around it."""
        return list(self.walk(keys))[-1]

    def without(self, *keys: str) -> Node:
        """The mapping less some of its keys."""
        return replace(self, content={key: node for key, node in self.children().items() if key not in keys})


LONGEST_NUMBER = 10
"""Digits that the number of a list's item has fewer of; Python does not read any number of them."""


def list_index(node: Node, key: Key) -> int | None:
    """``key`` as a position in the list ``node``, or as the name of one of its items; None when there is none."""
    if not node.is_list:
        return None
    if str(key).isdecimal() and len(str(key)) < LONGEST_NUMBER:
        return int(key) if int(key) < len(node.content) else None
    # A set that names a task of another library is called after it, unless it says otherwise.
    names = [(item.child("name") or item.child("task")) if item.is_mapping else None for item in node.content]
    return next((index for index, name in enumerate(names) if name is not None and name.content == key), None)


def merge(below: Node | None, above: Node, key: Key | None = None) -> Node:
    """``above`` laid over ``below``: mappings are merged key by key, everything else is replaced.

    A mapping whose `type` changes is replaced as a whole, because the options of one plug-in mean nothing to
    another. A merged section keeps the place where it was first opened.
    """
    if below is None or not (below.is_mapping and above.is_mapping):
        return above
    if key not in FREE_FORM and _type_changes(below, above):
        return above
    merged = below.children()
    for name, node in above.children().items():
        merged[name] = merge(merged.get(name), node, name)
    return replace(below, content=merged)


def _type_changes(below: Node, above: Node) -> bool:
    old, new = below.child("type"), above.child("type")
    if old is None or new is None:
        return False
    return not (old.is_mapping or new.is_mapping) and old.content != new.content


def assign(node: Node | None, keys: Sequence[str], value: Node, done: Keys = ()) -> Node:
    """The tree with ``value`` laid over the place ``keys``; raises InputError when a list has no such item."""
    if not keys:
        return merge(node, value, done[-1] if done else None)
    key, *rest = keys
    if node is not None and node.is_list:
        index = list_index(node, key)
        if index is None:
            count = len(node.content)
            items = (
                f"number them 0 to {count - 1}, or use their names"
                if count
                else f"it is empty; write {dotted(done)}='[...]'"
            )
            raise bad_input(dotted((*done, *keys)), f"{dotted(done)} is a list and has no item '{key}'", items)
        items_after = list(node.content)
        items_after[index] = assign(items_after[index], rest, value, (*done, key))
        return replace(node, content=tuple(items_after))
    below = node.child(key) if node is not None else None
    section = node.origin if node is not None and node.is_mapping else value.origin
    changed = Node({key: assign(below, rest, value, (*done, key))}, section)
    return merge(node, changed, done[-1] if done else None)


def dotted(keys: Sequence[Key]) -> str:
    """``train.epochs`` for ("train", "epochs")."""
    return ".".join(map(str, keys))


def shown(path: Path) -> str:
    """A path as a person would write it: relative when it lies in the current folder."""
    absolute = Path(os.path.normpath(path.absolute()))
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
