"""The recipe reference in Markdown, made from the options themselves: the README holds what this prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from finetune.recipe.options import PLUGIN_SECTIONS, Recipe
from finetune.registry import summary

BEGIN, END = "<!-- recipe reference: finetune schema --markdown -->", "<!-- end of recipe reference -->"
"""Around the reference in the README; a test holds the two against each other."""

WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "null": "null"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def markdown() -> str:
    """One table for each section of a recipe, and one for each plug-in."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    schema["required"].remove("name")
    lines = [*_table("A recipe", "", schema, definitions)]
    for section in ("model", "data", "train", "evaluate", "scoring"):
        for title, definition in _sections(section, schema["properties"][section], definitions):
            lines += _table(f"`{title}`", definition.get("description", ""), definition, definitions)
    for section, registry in PLUGIN_SECTIONS.items():
        for name, plugin in registry.all().items():
            definition = definitions[plugin.Options.__name__]
            lines += _table(f"`{section}: {{type: {name}}}`", summary(plugin), definition, definitions)
    return "\n".join([BEGIN, "", *lines, END])


def _sections(path: str, schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The section at ``path`` and those inside it, each definition once."""
    seen = set[str]()

    def walk(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for name in _references(schema):
            if name not in seen:
                seen.add(name)
                yield path, definitions[name]
                for key, inner in definitions[name]["properties"].items():
                    yield from walk(f"{path}.{key}", inner)

    return walk(path, schema)


def _references(schema: dict[str, Any]) -> list[str]:
    options = [schema, *schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]
    return [option["$ref"].rpartition("/")[2] for option in options if "$ref" in option]


def _table(title: str, text: str, definition: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{key}` | {_kind(field, definitions)} | {_default(key, field, definition)} | {_line(field, definitions)} |"
        for key, field in definition["properties"].items()
    ]
    head = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    return [f"**{title}**" + (f": {' '.join(text.split())}" if text else ""), "", *head, *rows, ""]


def _line(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    # A field that says no more than its section does has no description of its own.
    text = field.get("description") or next((definitions[name]["description"] for name in _references(field)), "")
    return " ".join(text.split()).replace("|", "\\|")


def _kind(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What may stand there, in words."""
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
        return "see below"
    return f"`{json.dumps(default) if not isinstance(default, str) else default}`"
