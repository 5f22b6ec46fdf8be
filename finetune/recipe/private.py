"""Finds secrets that somebody wrote into a recipe or a cluster file, which are copied into every study."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from finetune.core.errors import Problem
from finetune.core.secrets import SECRET, secret_values
from finetune.data.addresses import is_remote, secret_in
from finetune.recipe.tree import Node, dotted

ADVICE = "take it out: a study keeps what is written here, and what needs a secret finds it in the environment"


ASSIGNED = re.compile(rf"(?-i:\b([A-Z_]*(?:{SECRET.pattern})[A-Z0-9_]*)=[\"']?(?![\"'$`\s])\S)")
"""Shell that gives a secret variable a value which stands there, and is not asked for where the line is done."""


def private(trees: Iterable[Node], shell: bool = False) -> list[Problem]:
    """List every text with the value of a secret environment variable, or an address with a password, once; of a file
    whose texts are ``shell``, those that set such a variable, too."""
    values = secret_values()
    found = {}
    for tree in trees:
        for keys, text, where in _texts(tree, ()):
            if name := next((name for value, name in values.items() if value in text), None):
                found[where, keys] = f"has the value of the environment variable {name} in it"
            elif shell and (said := ASSIGNED.search(text)):
                found[where, keys] = f"sets {said[1]} to a value that would be written down"
            elif keys[-1:] != ("path",) and is_remote(text) and _asks(text):  # of a `path`, its options say so
                found[where, keys] = "is an address that says who asks"
    return [Problem(said, ADVICE, dotted(keys), where) for (where, keys), said in found.items()]


def _texts(node: Node, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    if node.is_mapping:
        for key, inner in node.children().items():
            yield (*keys, key), key, inner.origin.where
            yield from _texts(inner, (*keys, key))
    elif node.is_list:
        for number, inner in enumerate(node.content):
            yield from _texts(inner, (*keys, str(number)))
    elif isinstance(node.content, str):
        yield keys, node.content, node.origin.where


def _asks(text: str) -> bool:
    try:
        return bool(secret_in(text))
    except ValueError:  # no address after all
        return False
