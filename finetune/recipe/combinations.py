"""Options that are fine on their own and impossible together."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from finetune.data.options import DataOptions
from finetune.evaluate.options import HeldOut
from finetune.recipe.explain import Mistake
from finetune.registry import STRATEGIES, TASKS
from finetune.train.options import TrainOptions

OWN_PARTS = ("train", "validation")
"""Names that held-out tasks cannot have."""

SPLIT_TEST = "test"
"""Name of the held-out task made of the recipe's own test examples."""


def impossible(sections: dict[str, Any]) -> list[Mistake]:
    """The mistakes among those sections that are valid on their own; a check waits until all of its own are."""
    mistakes: list[Mistake] = []
    for check in CHECKS:
        needs = inspect.signature(check).parameters
        if all(name in sections for name in needs):
            found = check(**{name: sections[name] for name in needs})
            mistakes += [replace(mistake, curable=True) for mistake in found]
    return mistakes


def _head(task: Any, strategy: Any) -> Iterator[Mistake]:
    if STRATEGIES.get(strategy.type).needs_head and not TASKS.get(task.type).new_head:
        yield Mistake(
            ("strategy", "type"),
            f"is '{strategy.type}', which trains only a new head, and the task {task.type} has none",
            "write strategy type adapter or partial",
        )


def _held_out(data: DataOptions, evaluate: list[HeldOut]) -> Iterator[Mistake]:
    if data.test is None and not data.split.test and not evaluate:
        yield Mistake(("data",), "nothing is held out to score", "give data.split.test, data.test or evaluate")


def _names(data: DataOptions, evaluate: list[HeldOut]) -> Iterator[Mistake]:
    has_test = data.test is not None or bool(data.split.test)
    seen = Counter([SPLIT_TEST] if has_test else [])
    for index, task in enumerate(evaluate):
        if task.name in OWN_PARTS:
            found = f"'{task.name}' is the name of the recipe's own {task.name} examples"
            yield Mistake(("evaluate", index, "name"), found, "choose another name")
        elif seen[task.name]:
            taken = "is the name of the recipe's own test examples" if task.name == SPLIT_TEST else "is given twice"
            yield Mistake(("evaluate", index, "name"), f"'{task.name}' {taken}", "choose another name")
        seen[task.name] += 1


def _select(task: Any, train: TrainOptions) -> Iterator[Mistake]:
    choices = list(dict.fromkeys(["loss", *task.metrics]))
    if train.select not in choices:
        found = f"is '{train.select}', which is neither `loss` nor a metric of the task"
        yield Mistake(("train", "select"), found, f"choose from: {', '.join(choices)}; or add it to task.metrics")


def _early_stopping(data: DataOptions, train: TrainOptions) -> Iterator[Mistake]:
    if train.early_stopping is None:
        return
    if data.validation is None and not data.split.validation:
        advice = "give data.split.validation or data.validation, or leave early stopping out"
        yield Mistake(("train", "early_stopping"), "there are no validation examples to stop by", advice)
    elif not train.evaluations:
        found = "never stops, because train.evaluations is 0"
        yield Mistake(("train", "early_stopping"), found, "raise train.evaluations, or leave early stopping out")


def _batches(train: TrainOptions) -> Iterator[Mistake]:
    if train.micro_batch_size is not None and train.micro_batch_size > train.batch_size:
        found = f"is {train.micro_batch_size}, larger than the batch of {train.batch_size} it is a part of"
        yield Mistake(("train", "micro_batch_size"), found, "make it at most train.batch_size")


CHECKS: tuple[Callable[..., Iterator[Mistake]], ...] = (
    _head,
    _held_out,
    _names,
    _select,
    _early_stopping,
    _batches,
)
"""Each names, by its parameters, the sections it needs."""
