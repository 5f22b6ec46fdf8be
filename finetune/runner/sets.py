"""Evaluation sets that are read in their own way, or scored on another task than the one that is learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

from finetune.core.errors import InputError, Problem, bad_input
from finetune.core.registry import TASKS
from finetune.data import Reading, Splits
from finetune.data.labels import relabelled
from finetune.models.heads import name_of
from finetune.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.recipe import Recipe


class EvaluationSets:
    """The recipe's `evaluate:` section, as far as its sets say something of their own."""

    tasks: dict[str, Task]
    """The tasks of those sets that have one of their own, by the set's name."""

    def __init__(self, recipe: Recipe, task: Task, today: date, config: Callable[[], Any]):
        """``task`` is the recipe's own, not fitted yet; ``today`` and ``config`` are what every task is given."""
        self.task = task
        self.tasks = {
            entry.name: TASKS.get(entry.task.type)(entry.task, today=today, config=config)
            for entry in recipe.evaluate
            if entry.task is not None
        }
        self._labels = {entry.name: entry.labels for entry in recipe.evaluate if entry.labels}

    def task_of(self, name: str) -> Task:
        """Give the task that a held-out set is scored on."""
        return self.tasks.get(name, self.task)

    def readings(self) -> dict[str, Reading]:
        """Say how those sets are read that are not read as the recipe's task reads."""
        found = {name: _within(name, reading_of(task)) for name, task in self.tasks.items()}
        for name, labels in self._labels.items():
            column = self.task_of(name).options.label
            found[name] = _renaming(found.get(name, reading_of(self.task)), column, labels, f"evaluate.{name}.labels")
        return found

    def without(self, splits: Splits) -> Splits:
        """Give the splits without the sets that have a task of their own."""
        shared = {name: data for name, data in splits.held_out.items() if name not in self.tasks}
        return replace(splits, held_out=shared)

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        """Fit the sets' own tasks: with a head, to what the recipe's fitted task has learnt; else to the set itself.

        Raises InputError for a set with labels that were not learnt, and for a task that wants another model.
        """
        for name, own in self.tasks.items():
            data = splits.held_out[name]
            with _placed(name):
                own.check_config()
                if own.new_head:
                    own.adopt(self.task)
                    own.check_fitted(data)
                else:
                    own.fit(Splits(data, None, {name: data}, {}), tokenizer)
                wanted, there = name_of(own.architecture), name_of(self.task.architecture)
                if wanted != there:
                    found = f"is {own.options.type}, for a model of class {wanted}, and that of the study is a {there}"
                    raise bad_input("task.type", found, "choose a task that the trained model can be asked")


def reading_of(task: Task) -> Reading:
    """Say how a task reads its tables."""
    inputs, named = task.inputs(), task.options.model_dump(exclude={"type", "group", "metrics"})
    every = (each for value in named.values() for each in (value if isinstance(value, list) else [value]))
    beside = [each for each in every if isinstance(each, str) and each not in inputs]
    return Reading(inputs, task.check, task.group, task.converted, beside)


@contextmanager
def _placed(name: str) -> Iterator[None]:
    """Within the context, give what is wrong with a `task` the place of a set's own task in the recipe, and what such a
    task takes for training data that of the set."""
    try:
        yield
    except InputError as error:
        raise InputError(_moved(problem, name) for problem in error.problems) from error


def _moved(problem: Problem, name: str) -> Problem:
    found = problem.found.replace("data.train, row ", f"evaluate.{name}.data, row ")
    own = problem.path is not None and problem.path.startswith("task.")
    return replace(problem, found=found, path=f"evaluate.{name}.{problem.path}" if own else problem.path)


def _within(name: str, reading: Reading) -> Reading:
    """Read as ``reading`` says, and place its objections."""

    def check(data: Dataset, at: str) -> None:
        with _placed(name):
            reading.check(data, at)

    def convert(data: Dataset, at: str) -> Dataset:
        with _placed(name):
            return reading.convert(data, at) if reading.convert else data

    return replace(reading, check=check, convert=convert)


def _renaming(reading: Reading, column: str, labels: Mapping[str, str], path: str) -> Reading:
    """Read as ``reading`` says what has got other ``labels`` before."""

    def convert(data: Dataset, at: str) -> Dataset:
        renamed = relabelled(data, column, labels, path)
        return reading.convert(renamed, at) if reading.convert else renamed

    return replace(reading, convert=convert)
