"""The base of every options model: strict, frozen, and closed to unknown keys; and options in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """The options of a recipe's section. Subclasses live beside the code that reads them."""

    identifies: ClassVar[bool] = True
    """False for a section about what is done with runs once they are finished, which leaves them what they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    def identifying(self) -> dict[str, Any]:
        """The options that decide what comes out, in JSON's types: all but those marked :data:`OPERATIONAL`."""
        return {
            name: _identifying(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if field.json_schema_extra is not OPERATIONAL
        }


OPERATIONAL: dict[str, Any] = {"operational": True}
"""`json_schema_extra` of an option that changes how work is done but not what comes out; it may change on resuming."""


def _identifying(value: Any) -> Any:
    if isinstance(value, Options):
        return value.identifying()
    if isinstance(value, dict):
        return {key: _identifying(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_identifying(item) for item in value if getattr(item, "identifies", True)]
    return value


class Described(NamedTuple):
    """One option in words."""

    key: str
    value: str
    """What may stand there, with its range."""
    default: str
    """`required`, the default, or empty where leaving it out says it all."""
    meaning: str


WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "null": "null"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def described(definition: dict[str, Any], definitions: dict[str, Any]) -> Iterator[Described]:
    """Every option of a JSON schema's ``definition``; ``definitions`` has those that it refers to."""
    for key, field in definition["properties"].items():
        # A field that says no more than its section does has no description of its own.
        text = field.get("description") or next((definitions[name]["description"] for name in references(field)), "")
        yield Described(key, _kind(field, definitions), _default(key, field, definition), " ".join(text.split()))


def references(field: dict[str, Any]) -> list[str]:
    """Find the names of the definitions that a field refers to."""
    options = [field, *field.get("anyOf", [])]
    items = [option["items"] for option in options if "items" in option]
    options += [each for item in items for each in (item, *item.get("anyOf", []))]
    return [option["$ref"].rpartition("/")[2] for option in options if "$ref" in option]


def _kind(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Say in words which values a field may have."""
    if "$ref" in field or "oneOf" in field or "discriminator" in field:
        return "section"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(option, definitions) for option in field["anyOf"]))
    if "const" in field or "enum" in field:
        return ", ".join(f"`{word}`" for word in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_kind(field['items'], definitions)}" if "items" in field else "list"
    if field.get("type") == "object":
        return "section"
    limits = [f"{sign} {field[name]:g}" for name, sign in LIMITS.items() if name in field]
    return " ".join([WORDS[field["type"]], *([", ".join(limits)] if limits else [])])


def _default(key: str, field: dict[str, Any], definition: dict[str, Any]) -> str:
    if key in definition.get("required", []):
        return "required"
    if "default" not in field:
        return ""
    default = field["default"]
    if isinstance(default, dict):
        return f"`{{type: {default['type']}}}`" if "type" in default else "see below"
    return f"`{json.dumps(default) if not isinstance(default, str) else default}`"
