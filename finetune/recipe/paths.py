"""Makes the paths of a recipe absolute: each starts from the file that says it, or from the current folder when it
comes from the command line."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from finetune.core.options import Options
from finetune.core.paths import PACKAGE, local_path
from finetune.data.options import Source
from finetune.metrics.function import is_function, parts_of
from finetune.models import ModelOptions
from finetune.recipe.tree import Node
from finetune.tasks.harness.options import HarnessOptions
from finetune.train.options import TrainOptions

AnyOptions = TypeVar("AnyOptions", bound=Options)


def anchored(options: AnyOptions, node: Node | None) -> AnyOptions:
    """The same options with absolute paths; ``node`` is where they are written (None: a default)."""
    if node is None:
        return options
    changes = {name: _anchored_value(getattr(options, name), node.child(name)) for name in type(options).model_fields}
    if isinstance(options, Source) and options.kind != "hub" and not options.path.startswith(PACKAGE):
        place = options.place
        if not place.file.startswith(PACKAGE) and not options.remote:
            changes["path"] = str(place._replace(file=_absolute(place.file, node.child("path"))))
    if isinstance(options, ModelOptions):
        for name in ("source", "tokenizer"):
            said, at = getattr(options, name), node.child(name)
            if said is not None and _names_a_file(said, at):
                changes[name] = _absolute(said, at)
    if isinstance(options, HarnessOptions):
        if options.include is not None:
            changes["include"] = _absolute(options.include, node.child("include"))
    elif "metrics" in type(options).model_fields:
        said = node.child("metrics")
        changes["metrics"] = [_metric(name, said and said.child(n)) for n, name in enumerate(changes["metrics"])]
    if isinstance(options, TrainOptions):
        changes["select"] = _metric(options.select, node.child("select"))
    return options.model_copy(update=changes)


def _metric(name: str, node: Node | None) -> str:
    if not is_function(name):
        return name
    file, function = parts_of(name)
    return f"{_absolute(file, node)}:{function}"


def _anchored_value(value: Any, node: Node | None) -> Any:
    if isinstance(value, Options):
        return anchored(value, node)
    if isinstance(value, list) and node is not None and node.is_list:
        return [_anchored_value(item, node.child(index)) for index, item in enumerate(value)]
    return value


def _names_a_file(said: str, node: Node | None) -> bool:
    """A model source is a hub id unless it looks like a path, or a folder of that name lies beside the recipe."""
    if said.startswith(PACKAGE):
        return False
    if said.startswith((".", "/", "~", os.sep)) or said.lower().endswith(".gguf"):
        return True
    folder = node.origin.folder if node is not None else None
    return folder is not None and os.path.isdir(folder / said)


def _absolute(said: str, node: Node | None) -> str:
    if node is None or node.origin.folder is None:
        return said
    return os.path.normpath(node.origin.folder / local_path(said))
