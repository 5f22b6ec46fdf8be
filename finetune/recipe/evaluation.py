"""Evaluation sets as written, with what they leave to the recipe's own task."""

from __future__ import annotations

from dataclasses import replace

from finetune.recipe.tree import Node, merge


def completed(tree: Node) -> Node:
    """The same recipe, in which the `task` of an evaluation set is laid over the recipe's own, unless it has another
    `type`: an option is looked up where it was said."""
    task, sets = tree.child("task"), tree.child("evaluate")
    if task is None or not task.is_mapping or sets is None or not sets.is_list:
        return tree
    entries = tuple(_completed(entry, task) for entry in sets.content)
    return replace(tree, content={**tree.children(), "evaluate": replace(sets, content=entries)})


def _completed(entry: Node, task: Node) -> Node:
    own = entry.child("task") if entry.is_mapping else None
    if own is None or not own.is_mapping:
        return entry
    return replace(entry, content={**entry.children(), "task": replace(merge(task, own, "task"), origin=own.origin)})
