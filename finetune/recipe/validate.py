"""Finds every mistake in a recipe and its variants, and says each one once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from finetune.core.errors import Problem
from finetune.recipe.combinations import impossible
from finetune.recipe.explain import Mistake, explain
from finetune.recipe.options import Recipe
from finetune.recipe.tree import COMMAND_LINE, Node, dotted


def check(tree: Node) -> tuple[Recipe | None, list[Mistake]]:
    """The recipe in a tree, or None, with every mistake in it."""
    try:
        recipe = Recipe.model_validate(tree.plain())
    except ValidationError as error:
        broken = {detail["loc"][0] for detail in error.errors()}
        return None, explain(error, tree) + impossible(_sections(tree, broken))
    mistakes = impossible({name: getattr(recipe, name) for name in Recipe.model_fields})
    return (None if mistakes else recipe), mistakes


def _sections(tree: Node, broken: set[Any]) -> dict[str, Any]:
    """The sections which are valid on their own, although others are not."""
    plain = tree.plain()
    sections: dict[str, Any] = {}
    for name, field in Recipe.model_fields.items():
        if name in broken:
            continue
        if name in plain:
            section: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
            sections[name] = section.validate_python(plain[name])
        else:
            sections[name] = field.get_default(call_default_factory=True)
    return sections


def problems_of(shared: Node, variants: Mapping[str, tuple[Node, list[Mistake]]]) -> list[Problem]:
    """The problems of a recipe with variants, each once.

    ``shared`` is what the variants have in common. A mistake in it that all of them inherit is one of the recipe;
    any other is shown with the variant's name. What only seems wrong until a variant completes it is none.
    """
    problems: dict[tuple[str, str, str], Problem] = {}

    def add(mistake: Mistake, tree: Node, prefix: str = "") -> None:
        where, path = tree.nearest(mistake.keys).origin.where, dotted(mistake.keys)
        advice, said = mistake.advice, mistake.found
        if where == COMMAND_LINE:  # one override, however many variants it does not fit
            said = ""
            fits = [name for name, (_, others) in variants.items() if mistake.keys not in [m.keys for m in others]]
            advice += "".join(f"; for variant {name} alone, write variants.{name}.{path}=..." for name in fits[:1])
        problems.setdefault((where, path, said), Problem(mistake.found, advice, prefix + path, where))

    for mistake in check(shared)[1]:
        if not mistake.curable:
            add(mistake, shared)
    for name, (tree, mistakes) in variants.items():
        for mistake in mistakes:
            inherited = shared.nearest(mistake.keys).origin == tree.nearest(mistake.keys).origin
            everywhere = all(mistake in others for _, others in variants.values())
            add(mistake, tree, "" if inherited and everywhere else f"variants.{name}.")
    return list(problems.values())


def located(tree: Node, mistakes: list[Mistake]) -> list[Problem]:
    """The same mistakes with file and line."""
    return [Problem(m.found, m.advice, dotted(m.keys), tree.nearest(m.keys).origin.where) for m in mistakes]


def by_place(problem: Problem) -> tuple[Any, ...]:
    """Give a key to sort by file and line, those of the command line and of no place last."""
    place = re.fullmatch(r"(.*):(\d+)", problem.where or "", re.DOTALL)
    return (0, place[1], int(place[2])) if place else (1, problem.where or "", 0)
