"""Evaluation sets that are read in their own way, or scored on another task than the one that is learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.core.errors import InputError, Problem, bad_input
from finetune.core.registry import TASKS
from finetune.data import Reading, Splits
from finetune.data.labels import relabelled
from finetune.models.heads import name_of
from finetune.tasks.base import Task
from finetune.tasks.harness.task import HarnessTask

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.recipe import Recipe
    from finetune.recipe.options import HarnessSet


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
        self.harness = {
            entry.name: (f"lm_eval.{number}", entry, HarnessTask(entry, today=today, config=config))
            for number, entry in enumerate(recipe.lm_eval)
        }
        self.tasks |= {name: own for name, (_, _, own) in self.harness.items()}
        self._named = {entry.name for entry in recipe.evaluate}
        self._labels = {entry.name: entry.labels for entry in recipe.evaluate if entry.labels}

    def task_of(self, name: str) -> Task:
        """Give the task that a held-out set is scored on."""
        return self.tasks.get(name, self.task)

    def readings(self) -> dict[str, Reading]:
        """Say how those sets are read that are not read as the recipe's task reads."""
        own = {name: task for name, task in self.tasks.items() if name not in self.harness}
        found = {name: _within(name, reading_of(task)) for name, task in own.items()}
        for name, labels in self._labels.items():
            column = self.task_of(name).options.label
            found[name] = _renaming(found.get(name, reading_of(self.task)), column, labels, f"evaluate.{name}.labels")
        return found

    def place_of(self, name: str, splits: Splits) -> str:
        """Give the recipe path of what a held-out set of ``splits`` is read from."""
        if name in self.harness:
            return self.harness[name][0]
        return f"evaluate.{name}.data" if name in self._named else splits.at(name)

    def with_documents(self, splits: Splits, once: Callable[[str, list[Any], Callable[[], Any]], Any]) -> Splits:
        """Add the sets that the harness brings, each loaded ``once`` for all that share resources. Raises InputError
        for everything that is wrong with any of them."""
        held_out, facts, problems = dict(splits.held_out), dict(splits.facts["splits"]), list[Problem]()
        for name, (at, entry, own) in self.harness.items():
            try:
                documents = once("lm_eval", [at, own.options], partial(own.load, at))
                held_out[name] = own.bring(documents, at)
                _refuse_without_margin(entry, own, at, self.task)
            except InputError as error:
                problems += error.problems
                continue
            about = {"fingerprint": documents.fingerprint, "source": documents.source}
            facts[name] = {"examples": len(documents), **about}
        if problems:
            raise InputError(problems)
        if not self.harness:
            return splits
        leaks = dict(splits.facts["leaks"])
        leaks["not_compared"] = [*leaks.get("not_compared", []), *self.harness]
        return replace(splits, held_out=held_out, facts={**splits.facts, "splits": facts, "leaks": leaks})

    def without(self, splits: Splits) -> Splits:
        """Give the splits without the sets that have a task of their own."""
        shared = {name: data for name, data in splits.held_out.items() if name not in self.tasks}
        return replace(splits, held_out=shared)

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        """Fit the sets' own tasks: with a head, or with labels that were learnt, to what the recipe's fitted task has
        learnt; else to the set itself.

        Raises InputError for a set with labels that were not learnt, and for a task that wants another model.
        """
        for name, own in self.tasks.items():
            data = splits.held_out[name]
            with _placed(name):
                if name in self.harness:
                    _refuse_other_model(self.task, self.harness[name][0])
                    own.fit(Splits(data, None, {name: data}, {}), tokenizer)
                    continue
                own.check_config()
                if own.new_head or (own.answer == "label" and type(own) is type(self.task)):
                    own.adopt(self.task)
                    own.check_fitted(data)
                else:
                    own.fit(Splits(data, None, {name: data}, {}), tokenizer)
                wanted, there = name_of(own.architecture), name_of(self.task.architecture)
                if wanted != there:
                    found = f"is {own.options.type}, for a model of class {wanted}, and that of the study is a {there}"
                    raise bad_input("task.type", found, "choose a task that the trained model can be asked")


def _refuse_other_model(task: Task, at: str) -> None:
    """Refuse a model that is no causal language model."""
    there, wanted = name_of(task.architecture), name_of(HarnessTask.architecture)
    if there != wanted:
        found = f"asks a causal language model ({wanted}), and that of the study is another ({there})"
        raise bad_input(f"{at}.task", found, "leave it out, or use a model that was trained to continue text")


def _refuse_without_margin(entry: HarnessSet, own: HarnessTask, at: str, task: Task) -> None:
    """Refuse a set that is asked what was forgotten, by a metric of which no one knows what is little."""
    headline = own.metrics[0]
    if entry.role_beside(task.options) == "forgetting" and entry.margin is None and headline.unit.point is None:
        found = f"is not given, and '{headline.metric}' has no points of which one could be the default"
        advice = "say how much worse is still acceptable, in the metric's own unit; or write role: shifted"
        raise bad_input(f"{at}.margin", found, advice)


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
