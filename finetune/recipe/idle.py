"""Options of training that a solved probe has no use for, where a recipe says them of the probe itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from finetune.core.errors import Problem
from finetune.core.options import OPERATIONAL
from finetune.core.registry import STRATEGIES
from finetune.recipe.files import UNNAMED
from finetune.recipe.options import Recipe
from finetune.recipe.tree import COMMAND_LINE, Node, shown
from finetune.train.options import TrainOptions

STEPS = frozenset(
    name for name, field in TrainOptions.model_fields.items() if field.json_schema_extra is not OPERATIONAL
) - {"deterministic"}
"""Options of `train` about steps."""


def idle_steps(path: Path, shared: Node, trees: Mapping[str, Node], recipes: Mapping[str, Recipe]) -> Iterator[Problem]:
    """Find options of steps that are written, in the file at ``path`` or on the command line, for solved variants only.

    What it shares with others, which need it, or has from a recipe that it extends, is passed over.
    """
    for name, recipe in recipes.items():
        tree, own = trees[name], dict[str, str]()
        for key in sorted(recipe.train.model_fields_set & STEPS) if _solves(recipe) else ():
            node, common = tree.find(("train", key)), shared.find(("train", key))
            own_places = (f"{shown(path)}:", COMMAND_LINE) if path != UNNAMED else ("",)
            here = node and node.origin.where.startswith(own_places)
            inherited = tree is not shared and common is not None and node and common.origin == node.origin
            if node is not None and here and not inherited:
                own[key] = node.origin.where
        if own:
            found = f"says {', '.join(own)}, and this probe is solved: it takes no steps"
            place = "train" if tree is shared else f"variants.{name}.train"
            yield Problem(found, "leave that out, or write strategy.solver: steps", place, next(iter(own.values())))


def _solves(recipe: Recipe) -> bool:
    return STRATEGIES.get(recipe.strategy.type)(recipe.strategy).solves
