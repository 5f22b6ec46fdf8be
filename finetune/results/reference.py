"""The keys of `results.json`: as a JSON schema for programs, and as tables for people."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from finetune.core.options import described, references
from finetune.results import schema

INTRODUCTION = """\
# What a study shows

`runs/STUDY/report/results.json` is the machine interface of a study. `finetune schema --results` prints its JSON
schema, and this page, which is made from the same dataclasses (`schema.py`), says what each key means. Keys may be
added; taking one away, or giving it another meaning, is a new `format`. Intervals are `[low, high]`. What there is too
little to say of is null, and a `reason` says why. "set/metric" is the name of an evaluation set and of a metric, as in
`test/accuracy`.

From Python the same is `finetune.read_study("runs/STUDY").results`, with the keys as attributes.
"""


def json_schema() -> dict[str, Any]:
    """Make the JSON schema of `results.json`: every key is there in every file, with what it means."""
    made: dict[str, Any] = TypeAdapter(schema.Results).json_schema(mode="serialization")
    known = {cls.__name__: cls for cls in _dataclasses(schema.Results)}
    for name, definition in {"Results": made, **made["$defs"]}.items():
        meanings = _meanings(known[name])
        definition["required"] = list(definition["properties"])
        for key, field in definition["properties"].items():
            field.pop("default", None)
            if key in meanings:
                field["description"] = meanings[key]
    return made


def markdown() -> str:
    """Make the page: a table for each kind of entry, in the order in which `results.json` leads to them."""
    made = json_schema()
    definitions = made["$defs"]
    lines = [INTRODUCTION]
    for name in _order(made, definitions):
        definition = made if name == "Results" else definitions[name]
        lines += [f"## {name}", "", " ".join(definition["description"].split()), "", "| key | value | meaning |"]
        lines += ["| --- | --- | --- |"]
        for field in described(definition, definitions):
            kinds = [f"[{kind}](#{kind.lower()})" for kind in _kinds(definition["properties"][field.key])]
            value = f"{field.value}: {', '.join(kinds)}" if kinds else field.value
            own = definition["properties"][field.key].get("description", "")
            lines.append(f"| `{field.key}` | {value} | {' '.join(own.split())} |")
        lines.append("")
    return "\n".join(lines)


def _order(made: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """Every kind of entry after the one that first names it."""
    found: list[str] = []

    def visit(name: str, definition: dict[str, Any]) -> None:
        if name not in found:
            found.append(name)
            for field in definition["properties"].values():
                for kind in _kinds(field):
                    visit(kind, definitions[kind])

    visit("Results", made)
    return found


def _kinds(field: dict[str, Any]) -> list[str]:
    """The kinds of entry that a field holds: itself, in a list, or by name."""
    options = [field, *field.get("anyOf", [])]
    within = [
        option["additionalProperties"] for option in options if isinstance(option.get("additionalProperties"), dict)
    ]
    return [name for option in (field, *within) for name in references(option)]


def _dataclasses(cls: type) -> Iterator[type]:
    """Find ``cls``, and every dataclass that one of its fields may hold."""
    yield cls
    for hint in typing.get_type_hints(cls).values():
        parts = [hint]
        while parts:
            part = parts.pop()
            parts += typing.get_args(part)
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                yield from _dataclasses(part)


def _meanings(cls: type) -> dict[str, str]:
    """Read the text that is written under each field of a dataclass, and of those that it extends."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            said = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and text.value.value
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(said, str):
                found[field.target.id] = inspect.cleandoc(said)
    return found
