"""Every option that a recipe may set, found by walking its models, and another valid value for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from finetune.core.options import Options
from finetune.recipe import Recipe

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Leaf:
    """One field of one options model."""

    model: type[Options]
    field: str

    def __str__(self) -> str:
        return f"{self.model.__name__}.{self.field}"

    @property
    def annotation(self) -> Any:
        """The field's type, with its limits."""
        info = self.model.model_fields[self.field]
        return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation

    @property
    def single(self) -> bool:
        """Whether there is one valid value only, as that of a plug-in's `type`."""
        plain = self.model.model_fields[self.field].annotation
        return get_origin(plain) is Literal and len(get_args(plain)) == 1

    def another(self, current: Any) -> Any:
        """A valid value that is not the current one. Raises LookupError where none can be guessed."""
        check = TypeAdapter(self.annotation)
        for value in guesses(self.annotation, current):
            try:
                if value != current and check.validate_python(value, strict=True) != current:
                    return value
            except ValidationError:
                continue
        raise LookupError(f"{self} has a value that cannot be guessed: give it one in {__package__}.contexts.CASES")


def models(annotation: Any) -> Iterator[type[Options]]:
    """The options models inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Options):
        yield annotation
    elif get_origin(annotation) is not Literal:
        for argument in get_args(annotation):
            yield from models(argument)


def leaves(root: type[Options] = Recipe) -> list[Leaf]:
    """Every field of every model that can be reached, each once; but for fields that are one model and nothing else,
    of which the fields inside say all."""
    found, left = dict[type[Options], None](), [root]
    while left:
        model = left.pop(0)
        if model not in found:
            found[model] = None
            left += [inner for info in model.model_fields.values() for inner in models(info.annotation)]
    return [
        Leaf(model, name)
        for model in found
        for name, info in model.model_fields.items()
        if list(models(info.annotation)) != [info.annotation]
        # What another options model has by inheritance is read by the same code.
        and not any(name in base.model_fields for base in model.__mro__[1:] if base in found)
    ]


def choices(annotation: Any) -> list[Any]:
    """The words that a type allows, through Optional and Annotated."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) is Annotated:
        return choices(get_args(annotation)[0])
    return [word for argument in get_args(annotation) for word in choices(argument)] if union(annotation) else []


def union(annotation: Any) -> bool:
    """Whether it is one type or another."""
    return get_origin(annotation) is not None and not isinstance(get_origin(annotation), type)


def guesses(annotation: Any, current: Any) -> list[Any]:
    """Values that may be valid: others of the same kind first, and then those that the type allows."""
    if isinstance(current, bool):
        return [not current]
    numbers = []
    if isinstance(current, int):
        numbers = [current + 1, current // 2, current - 1]
    elif isinstance(current, float):
        numbers = [current / 2, current * 2, 0.5, 0.25]
    elif current is None:
        numbers = [2, 0.5, True]
    return [*choices(annotation), *numbers]


def at(section: Any, path: Sequence[str | int]) -> Any:
    """What lies at a path of a resolved recipe."""
    for key in path:
        section = section[key] if isinstance(key, int) else getattr(section, key)
    return section


def with_value(recipe: Any, path: Sequence[str | int], value: Any) -> Any:
    """A recipe as a dict, with another value at a path; sections on the way that are not there are made."""
    if not path:
        return value
    key, *rest = path
    if isinstance(key, int):
        return [with_value(item, rest, value) if number == key else item for number, item in enumerate(recipe)]
    return {**(recipe or {}), key: with_value((recipe or {}).get(key), rest, value)}


def merged(first: Any, second: Any) -> Any:
    """Two recipes as dicts, the second laid over the first; lists are replaced."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return second
    return {**first, **{key: merged(first.get(key), value) for key, value in second.items()}}
