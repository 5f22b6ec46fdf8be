"""Turns what pydantic reports into sentences about the recipe: what was found, and what to write instead."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from finetune.core.errors import did_you_mean
from finetune.recipe.options import PLUGIN_SECTIONS
from finetune.recipe.sections import description, kind_of_file, known_keys, models_at, plugin_name
from finetune.recipe.tree import Key, Keys, Node, Origin, dotted

SECTION = "a section (`key: value` lines)"
MISSING = "is missing"
UNKNOWN = "there is no key"

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": SECTION,
    "model_type": SECTION,
    "model_attributes_type": SECTION,
}

_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}

_LENGTHS = {
    "too_short": ("min_length", "at least"),
    "too_long": ("max_length", "at most"),
    "string_too_short": ("min_length", "at least"),
    "string_too_long": ("max_length", "at most"),
}


_YES_NO = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@dataclass(frozen=True)
class Mistake:
    """Something wrong at ``keys`` of a tree. ``curable``: what a variant adds or changes elsewhere may put it right."""

    keys: Keys
    found: str
    advice: str = ""
    curable: bool = False


def explain(error: ValidationError, tree: Node) -> list[Mistake]:
    """Every mistake in a pydantic error, each once, in the order in which pydantic found them."""
    mistakes: list[Mistake] = []
    branches: dict[Keys, list[Any]] = {}  # errors of a union's branches, by the place of the union
    for detail in error.errors(include_url=False):
        keys, union = _place(detail["loc"], detail["type"], tree)
        if union is None:
            mistakes.append(_one(detail, keys, tree))
        else:
            branches.setdefault(union, []).append((keys, detail))
    for union, details in branches.items():
        deeper = [_one(detail, keys, tree) for keys, detail in details if len(keys) > len(union)]
        mistakes += deeper or [_no_branch(union, [detail for _, detail in details], tree)]
    return _without_echoes(mistakes)


def _without_echoes(mistakes: list[Mistake]) -> list[Mistake]:
    """A required key that is only misspelt is one mistake, not an unknown key and a missing one."""
    unknown = [mistake.keys for mistake in mistakes if mistake.found.startswith(UNKNOWN)]

    def misspelt(mistake: Mistake) -> bool:
        section, key = mistake.keys[:-1], str(mistake.keys[-1])
        siblings = [str(keys[-1]) for keys in unknown if keys[:-1] == section]
        return mistake.found == MISSING and bool(difflib.get_close_matches(key, siblings, n=1))

    return [mistake for mistake in mistakes if not misspelt(mistake)]


def _place(loc: tuple[Key, ...], kind: str, tree: Node) -> tuple[Keys, Keys | None]:
    """The path in the recipe that pydantic's ``loc`` means, and the place of the union it passed through, if any.

    pydantic also puts the chosen plug-in and the branch of a union into ``loc``; the tree tells them from keys.
    """
    keys: Keys = ()
    union: Keys | None = None
    skipped_type_of: Keys | None = None
    for position, part in enumerate(loc):
        node = tree.find(keys)
        if node is not None and node.is_mapping:
            chosen = node.child("type")
            plugins = any(plugin_name(model) for model in models_at(keys, tree))
            if plugins and chosen and chosen.content == part and skipped_type_of != keys:
                skipped_type_of = keys
                continue
            absent_key = position == len(loc) - 1 and kind == "missing"
            is_key = node.child(part) is not None or absent_key
        else:
            is_key = node is not None and node.is_list and isinstance(part, int)
        if is_key:
            keys = (*keys, part)
        else:
            union = keys
    return keys, union


def _one(detail: Any, keys: Keys, tree: Node) -> Mistake:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    about = description(keys, tree)
    if kind == "missing":
        return _missing(keys, tree)
    if kind == "extra_forbidden":
        return _unknown_key(keys, tree)
    if kind == "union_tag_not_found":
        return Mistake((*keys, "type"), MISSING, did_you_mean("", _types(keys, tree)), curable=True)
    if kind == "union_tag_invalid" or (kind == "literal_error" and _chooses_plugin(keys, tree)):
        return _unknown_plugin(keys if keys[-1] == "type" else (*keys, "type"), tree)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        said = _quoted(value) if isinstance(value, str) else describe(value)
        return Mistake(keys, f"is {said}, which is not a choice here", did_you_mean(str(value), choices))
    if kind in ("value_error", "assertion_error"):
        node = tree.find(keys)
        return Mistake(keys, str(context["error"]), about, curable=node is not None and node.is_mapping)
    if kind in _EXPECTED:
        return _wrong_kind(keys, value, [_EXPECTED[kind]], tree)
    return Mistake(keys, f"is {describe(value)}; it must {_demand(kind, context)}", about)


def _demand(kind: str, context: dict[str, Any]) -> str:
    """Say in words what a bound or pattern asks for."""
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"be {words} {context[name]:g}"
    if kind in _LENGTHS:
        name, words = _LENGTHS[kind]
        unit = "character" if kind.startswith("string") else "item"
        return f"have {words} {context[name]} {unit}{'' if context[name] == 1 else 's'}"
    if kind == "string_pattern_mismatch":
        return "begin with a letter or digit, and have only letters, digits, '_', '.' and '-', at most 200 in all"
    return "be something else"


def _missing(keys: Keys, tree: Node) -> Mistake:
    if isinstance(keys[-1], int):
        return Mistake(keys[:-1], f"has too few items; number {keys[-1] + 1} is missing", description(keys, tree))
    advice = f"add `{keys[-1]}:`" + (f" to {dotted(keys[:-1])}" if len(keys) > 1 else "")
    about = description(keys, tree)
    return Mistake(keys, MISSING, f"{advice}. {about}" if about else advice, curable=True)


def _unknown_key(keys: Keys, tree: Node) -> Mistake:
    *section, key = keys
    chosen = [name for model in models_at(section, tree) if (name := plugin_name(model))]
    kind = f" of type {chosen[0]}" if len(chosen) == 1 else ""
    place = f"in {dotted(section)}{kind}" if section else f"at the top of {kind_of_file()}"
    known = known_keys(section, tree)
    advice = did_you_mean(str(key), known)
    elsewhere = _homes(str(key), tuple(section), known)
    return Mistake(keys, f"{UNKNOWN} '{key}' {place}", "; ".join([*elsewhere, advice]))


def _homes(key: str, section: Keys, known: Iterable[str]) -> list[str]:
    """Find where else a key would be known: under another type of this section, or deeper in the recipe."""
    if section and section[0] in PLUGIN_SECTIONS:
        plugins = PLUGIN_SECTIONS[str(section[0])].all()
        types = [name for name, plugin in plugins.items() if key in plugin.Options.model_fields]
        return [f"'{key}' belongs to {section[0]} type {' or '.join(types)}"] if types else []
    if section:
        return []
    empty = Node({}, Origin(""))
    homes = [name for name in known if any(key in m.model_fields for m in models_at((name,), empty))]
    return [f"'{key}' belongs into {' or '.join(homes)}"] if homes else []


def _types(keys: Keys, tree: Node) -> list[str]:
    section = tree.find(keys)
    bare = tree if section is None else Node({}, section.origin)
    return [name for model in models_at(keys, bare) if (name := plugin_name(model))]


def _chooses_plugin(keys: Keys, tree: Node) -> bool:
    return keys[-1] == "type" and bool(_types(keys[:-1], tree))


def _unknown_plugin(keys: Keys, tree: Node) -> Mistake:
    node = tree.find(keys)
    value = node.plain() if node else None
    if not isinstance(value, str):
        return Mistake(keys, f"is {describe(value)}; it must be a text", did_you_mean("", _types(keys[:-1], tree)))
    known, registry = _types(keys[:-1], tree), PLUGIN_SECTIONS.get(str(keys[0]))
    if registry and value in {each.name for each in registry.left_out}:
        return Mistake(keys, *registry.missing(value, known))
    kind = registry.kind if registry else "type"
    return Mistake(keys, f"there is no {kind} called {_quoted(value)}", did_you_mean(value, known))


def _no_branch(keys: Keys, details: list[Any], tree: Node) -> Mistake:
    """Explain that no branch of a union took the value, whose kind is wrong for all of them."""
    expected = [_EXPECTED[detail["type"]] for detail in details if detail["type"] in _EXPECTED]
    if len(expected) < len(details):  # one branch liked the kind but not the value; its complaint is the useful one
        return _one(next(detail for detail in details if detail["type"] not in _EXPECTED), keys, tree)
    return _wrong_kind(keys, details[0]["input"], expected, tree)


def _wrong_kind(keys: Keys, value: Any, expected: list[str], tree: Node) -> Mistake:
    kinds = " or ".join(dict.fromkeys(expected))
    return Mistake(keys, f"is {describe(value)}; it must be {kinds}", _cure(keys, value, kinds, tree))


def _cure(keys: Keys, value: Any, kinds: str, tree: Node) -> str:
    """Advise what to type instead, when that is clear; otherwise say what the option means."""
    if isinstance(value, str) and "number" in kinds and re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", value, re.I):
        return f"take away the quotes: {value}"
    if isinstance(value, str) and kinds == _EXPECTED["bool_type"] and value.lower() in _YES_NO:
        return f"write {_YES_NO[value.lower()]}"
    if kinds.startswith("a text") and isinstance(value, bool | int | float):
        return f'put it in quotes: "{_quoted(value)}"'
    if kinds == SECTION and isinstance(value, str) and value in _types(keys, tree):
        return f"write {dotted(keys)}: {{type: {value}}}"
    if kinds == "a list" and isinstance(value, str):
        return f"write [{value}]"
    return description(keys, tree)


def describe(value: Any) -> str:
    """A value in plain words."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"{_quoted(value)}, a truth value"
    if isinstance(value, str):
        return f"{_quoted(value)}, a text"
    if isinstance(value, int):
        return f"{value}, a whole number"
    if isinstance(value, float):
        return f"{value:g}, a number"
    return "a list" if isinstance(value, list) else "a section"


def _quoted(value: Any) -> str:
    """Texts in quotes and cut to a readable length, everything else as YAML writes it."""
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}...'"
    return json.dumps(value)
