"""The recipe reference in Markdown, made from the options themselves: recipes/REFERENCE.md holds what this prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finetune.core.options import described, references
from finetune.core.registry import ADVICE, summary
from finetune.recipe.options import PLUGIN_SECTIONS, Recipe

BEGIN, END = "<!-- recipe reference: finetune schema --markdown -->", "<!-- end of recipe reference -->"
"""Around the reference in recipes/REFERENCE.md; a test holds the two against each other."""

BAR = "\\|"
"""A bar inside a cell."""

SECTIONS = (
    *("seeds", "model", "data", "train", "compute"),
    *("evaluate", "lm_eval", "scoring", "baselines", "tracking"),
)
"""Sections of a recipe that choose no plug-in, in this order."""


def markdown() -> str:
    """One table for each section of a recipe, and one for each plug-in."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    schema["required"].remove("name")
    lines = [*_table("A recipe", "", schema, definitions)]
    for section in SECTIONS:
        for title, definition in _sections(section, schema["properties"][section], definitions):
            lines += _table(f"`{title}`", definition.get("description", ""), definition, definitions)
    for section, registry in PLUGIN_SECTIONS.items():
        for name, plugin in registry.all().items():
            definition = definitions[plugin.Options.__name__]
            lines += _table(f"`{section}: {{type: {name}}}`", summary(plugin), definition, definitions)
    return "\n".join([BEGIN, "", *lines, *_advice(), END])


def _advice() -> Iterator[str]:
    """A table of the rules of thumb by which recipes are advised on."""
    about = "Advice of `finetune check` and `finetune init`, by the names that silence it."
    yield from ["### `silence`", "", about, ""]
    yield from ["| rule | what it says | why | source |", "| --- | --- | --- | --- |"]
    for name, rule in ADVICE.all().items():
        cells = (summary(rule), rule.why, rule.source)
        yield f"| `{name}` | {' | '.join(cell.replace('|', BAR) for cell in cells)} |"
    yield ""


def _sections(path: str, schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The section at ``path`` and those inside it, each definition once."""
    seen = set[str]()

    def walk(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for name in references(schema):
            if name not in seen:
                seen.add(name)
                yield path, definitions[name]
                for key, inner in definitions[name]["properties"].items():
                    yield from walk(f"{path}.{key}", inner)

    return walk(path, schema)


def _table(title: str, text: str, definition: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{option.key}` | {option.value} | {option.default} | {option.meaning.replace('|', BAR)} |"
        for option in described(definition, definitions)
    ]
    head = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    about = [" ".join(text.split()), ""] if text else []
    return [f"### {title}", "", *about, *head, *rows, ""]
