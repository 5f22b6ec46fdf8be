"""The JSON schema of recipe files, for editors that complete and check while one types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from finetune.recipe.options import STUDY_KEYS, Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"

PART = ".part"
"""Suffix of definitions in which nothing is required: the rest comes from another file or section."""


def json_schema() -> dict[str, Any]:
    """The schema of a recipe file, draft 2020-12.

    A recipe that stands alone must be complete. One that extends another or has variants may leave out what they
    give, so there only what is written is checked; `finetune check` then tells what is missing.
    """
    whole = Recipe.model_json_schema()
    definitions = whole.pop("$defs", {})
    for definition in definitions.values():
        _name_plugin(definition)
    whole["required"] = [key for key in whole["required"] if key != "name"]  # the file's name stands in for it
    definitions["Recipe"] = _with(whole, extends=_EXTENDS)
    parts = {name + PART: _part(definition) for name, definition in definitions.items()}
    variant = _without(_part(whole), STUDY_KEYS)
    parts["Recipe" + PART] = _with(_part(definitions["Recipe"]), variants=_VARIANTS)
    return {
        "$schema": DIALECT,
        "title": "finetune recipe",
        "description": "What to fine-tune, on what, how, under which seeds.",
        "type": "object",
        "if": {"anyOf": [{"required": ["extends"]}, {"required": ["variants"]}]},
        "then": {"$ref": f"#/$defs/Recipe{PART}"},
        "else": {"$ref": "#/$defs/Recipe"},
        "$defs": {**definitions, **parts, "Variant": {**variant, "title": "Variant"}},
    }


_EXTENDS = {
    "description": "Recipe file, or several, that this one is laid over; paths start from this file.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}

_VARIANTS = {
    "description": "Named sets of overrides, to be compared with each other. `{}` changes nothing.",
    "type": ["object", "null"],
    "additionalProperties": {"anyOf": [{"$ref": "#/$defs/Variant"}, {"type": "null"}]},
}


def _name_plugin(definition: dict[str, Any]) -> None:
    """Call a plug-in's options by the word a recipe uses for them."""
    name = definition.get("properties", {}).get("type", {}).get("const")
    if name is not None:
        definition["title"] = name


def _with(definition: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {**definition, "properties": {**definition["properties"], **properties}}


def _without(definition: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    kept = {key: value for key, value in definition["properties"].items() if key not in names}
    return {**definition, "properties": kept}


def _part(schema: Any) -> Any:
    """The same schema with nothing required, also in the sections it refers to."""
    if isinstance(schema, list):
        return [_part(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    part = {key: _part(value) for key, value in schema.items() if key not in ("required", "discriminator")}
    if "oneOf" in part:  # without its `type`, a section may fit several plug-ins
        part["anyOf"] = part.pop("oneOf")
    if "$ref" in part:
        part["$ref"] += PART
    return part
