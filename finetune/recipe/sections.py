"""Which options may stand at a place of the recipe: the schema, walked along a dotted path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from finetune.core.options import Options
from finetune.recipe.options import Recipe
from finetune.recipe.tree import Key, Node

FILE_KEYS = ("extends", "variants")
"""Keys of a recipe file that are used up while it is resolved."""


_root: ContextVar[tuple[type[Options], str]] = ContextVar("root", default=(Recipe, "a recipe"))


@contextmanager
def explaining(model: type[Options], what: str) -> Iterator[None]:
    """Within the context, explain files whose options are ``model``, and which are called ``what``, in the place of
    recipes."""
    token = _root.set((model, what))
    try:
        yield
    finally:
        _root.reset(token)


def kind_of_file() -> str:
    """Say what the files are called whose options are explained."""
    return _root.get()[1]


def models_in(annotation: Any) -> Iterator[type[Options]]:
    """The options models inside an annotation, through Optional, Union, Annotated and list."""
    if isinstance(annotation, type) and issubclass(annotation, Options):
        yield annotation
    elif get_origin(annotation) is not Literal:
        for argument in get_args(annotation):
            yield from models_in(argument)


def plugin_name(model: type[Options]) -> str | None:
    """The `type` under which a recipe chooses these options; None for a section without plug-ins."""
    field = model.model_fields.get("type")
    return get_args(field.annotation)[0] if field and get_origin(field.annotation) is Literal else None


def models_at(keys: Sequence[Key], tree: Node) -> list[type[Options]]:
    """The models that may describe the section at ``keys``: one, or every plug-in when its `type` does not choose."""
    models = [_root.get()[0]]
    for depth, key in enumerate(keys, start=1):
        if str(key).isdecimal():
            continue
        fields = [model.model_fields[str(key)] for model in models if key in model.model_fields]
        found = [model for field in fields for model in models_in(field.annotation)]
        chosen = tree.find((*keys[:depth], "type")) or tree.find((*keys[: depth + 1], "type"))
        models = [model for model in found if chosen and plugin_name(model) == chosen.content] or found
    return models


def field_at(keys: Sequence[Key], tree: Node) -> FieldInfo | None:
    """The field that ``keys`` lead to, or None when there is no such option."""
    names = [key for key in keys if not str(key).isdecimal()]
    if not names:
        return None
    last = max(index for index, key in enumerate(keys) if not str(key).isdecimal())
    models = models_at(keys[:last], tree)
    return next((model.model_fields[str(keys[last])] for model in models if keys[last] in model.model_fields), None)


def description(keys: Sequence[Key], tree: Node) -> str:
    """Describe the option at ``keys`` on one line; empty when there is no such option."""
    field = field_at(keys, tree)
    return " ".join((field.description or "").split()) if field else ""


def known_keys(keys: Sequence[Key], tree: Node) -> list[str]:
    """The keys that the section at ``keys`` may have."""
    names = [name for model in models_at(keys, tree) for name in model.model_fields]
    return sorted({*names, *(FILE_KEYS if not keys and _root.get()[0] is Recipe else ())})
