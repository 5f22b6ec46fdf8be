"""`key.path=value` on the command line: a last word over everything a recipe and its variants say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.core.errors import InputError, Problem
from finetune.recipe.tree import COMMAND_LINE, Node, Origin, assign
from finetune.recipe.yaml_text import parse


@dataclass(frozen=True)
class Override:
    """One `key.path=value`, taken apart."""

    keys: tuple[str, ...]
    value: Node

    @property
    def variant(self) -> str | None:
        """The variant this override is for; None when it is for all of them."""
        return self.keys[1] if self.keys[0] == "variants" and len(self.keys) > 1 else None

    @property
    def inner(self) -> Override:
        """The same override seen from inside its variant."""
        return Override(self.keys[2:], self.value) if self.variant is not None else self


def parse_overrides(texts: Iterable[str]) -> tuple[list[Override], list[Problem]]:
    """Take the overrides apart; those which cannot be are problems. Values are YAML, lists are reached by index."""
    overrides: list[Override] = []
    problems: list[Problem] = []
    origin = Origin(COMMAND_LINE, Path.cwd())
    for text in texts:
        path, equals, value = text.partition("=")
        keys = tuple(path.strip().split("."))
        if not equals or not all(keys):
            advice = "write key.path=value, for example train.epochs=1"
            problems.append(Problem(f"'{text}' is not an override", advice, where=COMMAND_LINE))
            continue
        try:
            node, wrong = parse(value, lambda line: origin)
        except InputError as error:
            problems += [replace(problem, path=path) for problem in error.problems]
            continue
        problems += [replace(problem, path=path) for problem in wrong]
        overrides.append(Override(keys, node or Node(None, origin)))
    return overrides, problems


def apply(tree: Node, overrides: Iterable[Override], problems: list[Problem]) -> Node:
    """``tree`` with the overrides laid over it, in order; those that fit nowhere are added to ``problems``."""
    for override in overrides:
        try:
            tree = assign(tree, override.keys, override.value)
        except InputError as error:
            problems += error.located(lambda path: COMMAND_LINE).problems
    return tree
