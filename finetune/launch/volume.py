"""What a recipe needs of this machine and does not lie on the volume that pods have."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import Problem
from finetune.launch.cluster import KubernetesOptions

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe
    from finetune.recipe.tree import Node

ADVICE = "put it there; pods see nothing else of this machine"


def off_volume(recipe: ResolvedRecipe, own: KubernetesOptions) -> Iterator[Problem]:
    """Find the files that a recipe is read from, or names, which are here and would not be in a pod."""
    files = {file: where for tree in recipe.trees.values() for file, where in _files(tree)}
    for file, where in files.items():
        if not own.holds(file):
            yield Problem(f"{file} does not lie on the claim, at {own.mount}", ADVICE, where=where)
    named = {place: path for variant in recipe.variants for place, path in _paths((), variant.recipe.model_dump())}
    for place, path in named.items():
        if not own.holds(path) and _is_here(path):
            yield Problem(f"{path} does not lie on the claim, at {own.mount}", ADVICE, place, recipe.locate(place))


def _files(node: Node) -> Iterator[tuple[Path, str]]:
    """Give the files that a recipe was read from, of which it extends some, each with a place in it."""
    file, _, line = node.origin.where.rpartition(":")
    if line.isdecimal() and node.origin.folder is not None:
        yield node.origin.folder / Path(file).name, node.origin.where
    children = node.content.values() if node.is_mapping else node.content if node.is_list else ()
    for child in children:
        yield from _files(child)


def _paths(keys: tuple[str, ...], value: Any) -> Iterator[tuple[str, str]]:
    """Give the paths that a recipe names, which are absolute by now, with their places in it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths((*keys, str(key)), item)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _paths((*keys, str(number)), item)
    elif isinstance(value, str) and value.startswith("/"):
        yield ".".join(keys), value


def _is_here(path: str) -> bool:
    """Tell whether there is a file or folder of that name, or of that pattern, or a function in such a file."""
    return os.path.exists(path) or bool(glob.glob(path)) or os.path.isfile(path.rpartition(":")[0])
