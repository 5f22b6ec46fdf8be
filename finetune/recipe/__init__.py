"""Recipes: load, extend, override, validate, resolve, digest; and where each value came from."""

from finetune.recipe.options import Recipe, SeedsUntil, Stage
from finetune.recipe.resolve import ResolvedRecipe, Variant, load, read_resolved
from finetune.recipe.schema import json_schema

__all__ = ["Recipe", "ResolvedRecipe", "SeedsUntil", "Stage", "Variant", "json_schema", "load", "read_resolved"]
