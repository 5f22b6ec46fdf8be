"""Evaluation sets: with what they leave to the recipe's own task; and those that the model could not be asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from finetune.core.registry import TASKS
from finetune.data.options import DataOptions
from finetune.evaluate.options import ScoringOptions
from finetune.metrics import find
from finetune.recipe import metric_choices
from finetune.recipe.explain import Mistake
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


def sets(
    data: DataOptions, task: Any, strategy: Any, evaluate: list[Any], scoring: ScoringOptions
) -> Iterator[Mistake]:
    """Evaluation sets that the model cannot be asked, or whose answers would say nothing."""
    has_test = data.test is not None or bool(data.split.test)
    for number, entry in enumerate(evaluate):
        own = entry.task or task
        at, kind, rejected = ("evaluate", number), TASKS.get(own.type)(own), getattr(own, "rejected", None)
        if own.type != task.type and kind.new_head:
            found = f"is '{own.type}', which wants a new head, and the model has the one of task {task.type}"
            without = [name for name, each in TASKS.all().items() if not each.new_head]
            yield Mistake((*at, "task", "type"), found, f"choose from: {', '.join(without)}; or train a study for it")
            continue
        if entry.labels and "label" not in type(own).model_fields:
            yield Mistake((*at, "labels"), f"renames labels, and task {own.type} has none", "leave it out")
        if entry.task is not None:
            checks = [*metric_choices.answers(own), *metric_choices.columns(own), *metric_choices.counted_bytes(own)]
            checks += metric_choices.extracted(own)
            checks += metric_choices.rewards(own, strategy) if rejected else metric_choices.margins(own)
            yield from (replace(each, keys=(*at, *each.keys)) for each in checks)
            if not has_test and not number:
                found = "is the first set, by which variants are compared, and its task is not the recipe's own"
                yield Mistake(
                    (*at, "task"), found, "hold out examples in data, or put a set of the recipe's task first"
                )
        if entry.role_beside(task) == "forgetting":
            yield from _forgetting(at, own, entry.margin, kind.new_head or not scoring.base)
        elif entry.margin is not None:
            found = "is about what may be forgotten, and the set's role is shifted"
            yield Mistake((*at, "margin"), found, "write role: forgetting, or leave it out")


def harness_sets(task: Any, lm_eval: list[Any], scoring: ScoringOptions) -> Iterator[Mistake]:
    """Tasks of the harness whose answers would be held against nothing."""
    for number, entry in enumerate(lm_eval):
        at = ("lm_eval", number)
        if entry.role_beside(task) == "forgetting" and not scoring.base:
            found = "is forgetting, which is held against the untuned model, and that one is not scored"
            yield Mistake((*at, "role"), found, "write role: shifted, or scoring.base: true")
        elif entry.role == "shifted" and entry.margin is not None:
            found = "is about what may be forgotten, and the set's role is shifted"
            yield Mistake((*at, "margin"), found, "write role: forgetting, or leave it out")


def _forgetting(at: tuple[Any, ...], own: Any, margin: float | None, unscored: bool) -> Iterator[Mistake]:
    """Find what forgetting cannot be tested by."""
    if unscored:
        found = "is forgetting, which is held against the untuned model, and that one is not scored"
        advice = "write role: shifted; or, where the task has no new head, scoring.base: true"
        yield Mistake((*at, "role"), found, advice)
    metric = find(own.metrics[0])
    if margin is None and (metric is None or metric.unit.point is None):
        found = f"is not given, and '{own.metrics[0]}' has no points of which one could be the default"
        yield Mistake((*at, "margin"), found, "say how much worse is still acceptable, in the metric's own unit")
