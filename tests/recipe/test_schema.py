"""The JSON schema, held against recipes by a small validator of the keywords it uses."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from finetune.recipe import json_schema

SCHEMA = json_schema()
KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
KNOWN = {
    "$schema", "title", "description", "default", "$defs", "discriminator", "type", "const", "enum", "anyOf", "oneOf",
    "if", "then", "else", "$ref", "required", "properties", "additionalProperties", "items", "prefixItems", "minItems",
    "maxItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern", "minLength",
}  # fmt: skip


def fits(value, schema) -> bool:
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema and not fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]):
        return False
    if "if" in schema and not fits(value, schema["then" if fits(value, schema["if"]) else "else"]):
        return False
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(
        isinstance(value, KINDS[kind]) and not (value is True and kind != "boolean") for kind in kinds
    ):
        return False
    if value != schema.get("const", value) or value not in schema.get("enum", [value]):
        return False
    if "anyOf" in schema and not any(fits(value, option) for option in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(fits(value, option) for option in schema["oneOf"]) != 1:
        return False
    return _inner_fits(value, schema)


def _inner_fits(value, schema) -> bool:
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        inner = {key: properties.get(key, others) for key in value}
        known = all(part is not False and fits(value[key], part or {}) for key, part in inner.items())
        return known and set(schema.get("required", ())) <= set(value)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return False
        return all(fits(item, schema.get("items", {})) for item in value)
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, int | float) and not isinstance(value, bool):
        above = value >= schema.get("minimum", value) and value > schema.get("exclusiveMinimum", value - 1)
        return above and value <= schema.get("maximum", value) and value < schema.get("exclusiveMaximum", value + 1)
    return True


GOOD = """
seeds: 5
model: {source: org/name}
data: {train: {path: a.csv, columns: {text: body}}, split: {test: 0.3}}
task: {type: classification, label: topic}
strategy: {type: adapter, rank: 8}
train: {epochs: 3, early_stopping: {patience: 2}, betas: [0.9, 0.99]}
evaluate: [{name: a, data: {path: b.csv}}]
"""


@pytest.mark.parametrize(
    "more",
    [
        "",
        "name: x",
        "seeds: [1, 2]",
        "variants: {a: {strategy: {rank: 4}}, b: {strategy: {type: linear}, train: {epochs: 1}}, c: }",
        "extends: base.yaml",
    ],
)
def test_good_recipes_fit(more):
    assert fits({**yaml.safe_load(GOOD), **(yaml.safe_load(more) or {})}, SCHEMA)


def test_a_recipe_that_extends_another_may_leave_things_out():
    assert fits({"extends": ["a.yaml", "b.yaml"], "strategy": {"rank": 4}}, SCHEMA)
    assert not fits({"strategy": {"type": "full"}}, SCHEMA)


@pytest.mark.parametrize(
    "more",
    [
        "epochs: 3",
        "train: {epoch: 3}",
        "train: {epochs: x}",
        "train: {epochs: 0}",
        "strategy: {type: linear, rank: 3}",
        "strategy: {type: lora}",
        "strategy: {rank: 3}",
        "seeds: x",
        "variants: {a: {seeds: 3}}",
        "variants: {a: {strategy: {rnk: 3}}}",
        "variants: {a: {train: {epoch: 3}}}",
        "{extends: 3}",
        "{extends: a, train: {epoch: 3}}",
    ],
)
def test_bad_recipes_do_not_fit(more):
    assert not fits({**yaml.safe_load(GOOD), **yaml.safe_load(more)}, SCHEMA)


def test_it_is_a_schema_that_editors_can_read():
    assert SCHEMA["$schema"].endswith("2020-12/schema")
    assert SCHEMA["title"]
    text = json.dumps(SCHEMA)
    references = set(re.findall(r'"#/\$defs/([^"]+)"', text))
    assert references <= set(SCHEMA["$defs"])
    fields = SCHEMA["$defs"]["Recipe"]["properties"] | SCHEMA["$defs"]["TrainOptions"]["properties"]
    assert [name for name, field in fields.items() if not field.get("description") and "$ref" not in field] == []
    assert "Passes over the training examples" in text
