"""What the runs of a study have in common, loaded once: data, tokenizer, encoded examples, the base model."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar, cast

from finetune import models
from finetune.core.examples import Encoded
from finetune.core.progress import phase
from finetune.core.registry import STRATEGIES, TASKS
from finetune.data import Splits, load_splits
from finetune.models import Pooling
from finetune.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.recipe import Recipe

T = TypeVar("T")


@dataclass(frozen=True)
class TaskData:
    """A task fitted to its data, and the data as the model sees them."""

    task: Task
    train: Encoded
    validation: Encoded | None
    held_out: dict[str, Encoded]
    tables: dict[str, Dataset]
    """The held-out sets as they were read."""
    majority: dict[str, float | None]
    """For each held-out set, the share that always giving the commonest training answer gets right."""
    facts: dict[str, Any]
    """`splits`, `duplicates_dropped` and `leaks` of the study's `data.json`."""
    learnt: dict[str, Dataset] = field(default_factory=dict)
    """The training examples, and those of the validation split where there is one, as they were read."""

    @property
    def sets(self) -> dict[str, Encoded]:
        """All that there are, by name."""
        return {"train": self.train, **({"validation": self.validation} if self.validation else {}), **self.held_out}


class Resources:
    """Loads on first use, and keeps what it loaded for the runs that need the same."""

    def __init__(self, today: date | None = None) -> None:
        self.today = today or date.today()
        """The study's date: the day it was begun."""
        self._kept: dict[str, Any] = {}

    def data(self, recipe: Recipe, split_seed: int) -> TaskData:
        """The recipe's data, split, checked and encoded for its task. Raises InputError for data that cannot serve."""
        # How a head pools has no part in what is read and encoded.
        plain = recipe.model_copy(update={"task": _unpooled(recipe.task)})
        source, pairs = [recipe.model.source, recipe.model.tokenizer], STRATEGIES.get(recipe.strategy.type).pairs
        wanted = [recipe.data, *recipe.evaluate, plain.task, *source, pairs, split_seed]
        data = self.once("data", wanted, lambda: self._load_data(plain, split_seed))
        pooling = pooling_of(recipe)
        if pooling is None:
            return data
        return self.once("pooled", [*wanted, pooling], lambda: replace(data, task=_with(data.task, pooling)))

    def base(self, recipe: Recipe, task: Task) -> models.BaseModel:
        """The base model with the task's head, as every run starts from it."""
        config = task.model_config()
        return self.once(
            "base",
            [recipe.model, task.architecture, config],
            lambda: self._load_base(recipe, task, config),
        )

    @staticmethod
    def _load_base(recipe: Recipe, task: Task, config: dict[str, Any]) -> models.BaseModel:
        with phase(f"loading {recipe.model.source}"):
            return models.load_base(recipe.model, task.architecture, task.new_head, **config)

    def _load_data(self, recipe: Recipe, split_seed: int) -> TaskData:
        task: Task = TASKS.get(recipe.task.type)(recipe.task)
        task.pairs = STRATEGIES.get(recipe.strategy.type).pairs
        task.today = self.today
        task.config = lambda: models.load_config(recipe.model)
        task.check_config()
        held_out = {entry.name: entry.data for entry in recipe.evaluate}
        # The whole task, because it checks its own columns while the data are read.
        wanted = [recipe.data, *recipe.evaluate, recipe.task, split_seed]
        splits: Splits = self.once(
            "splits",
            wanted,
            lambda: load_splits(
                recipe.data, held_out, task.inputs(), split_seed, task.check, task.group, task.converted
            ),
        )
        tokenizer = self.once(
            "tokenizer", [recipe.model.source, recipe.model.tokenizer], lambda: models.load_tokenizer(recipe.model)
        )
        task.fit(splits, tokenizer)
        encoded = {
            name: task.encode(data, f"evaluate.{name}.data" if name in held_out else "data.test", training=False)
            for name, data in splits.held_out.items()
        }
        train = task.encode(splits.train, "data.train", training=True)
        validation = splits.validation and task.encode(splits.validation, "data.validation", training=False)
        every = {"train": train, **({"validation": validation} if validation else {}), **encoded}
        facts = splits.facts | {
            "splits": {name: {**facts, "facts": every[name].facts} for name, facts in splits.facts["splits"].items()}
        }
        majority = {name: task.majority(found.examples) for name, found in encoded.items()}
        learnt = {"train": splits.train, **({"validation": splits.validation} if splits.validation else {})}
        return TaskData(task, train, validation, encoded, splits.held_out, majority, facts, learnt)

    def once(self, kind: str, wanted: list[Any], load: Callable[[], T]) -> T:
        """What ``load`` gives, or gave when the same was wanted before."""
        key = json.dumps([kind, *wanted], sort_keys=True, default=lambda options: options.model_dump(mode="json"))
        if key not in self._kept:
            self._kept[key] = load()
        return self._kept[key]


def asked_pooling(task: Any, strategy: Any) -> str:
    """How the recipe's task, or else its strategy, has a new head pool: `model` where there is none, too."""
    if not TASKS.get(task.type).new_head:
        return "model"
    return getattr(task, "pooling", None) or STRATEGIES.get(strategy.type)(strategy).pooling


def pooling_of(recipe: Recipe) -> Pooling | None:
    """How the recipe's head of our own pools, as far as it can be said without weights; None: the architecture's way.

    Raises InputError for files of the model that cannot be read.
    """
    asked, normalise = asked_pooling(recipe.task, recipe.strategy), getattr(recipe.task, "normalise", None)
    if asked == "model":
        return None
    if asked != "auto":
        return Pooling(mode=cast(Any, asked), normalise=bool(normalise), reason="the recipe says so")
    found = models.declared(recipe.model) or Pooling(mode="auto")
    return found if normalise is None else found.model_copy(update={"normalise": normalise})


def _unpooled(options: Any) -> Any:
    """A task's options without what they say of pooling."""
    return options.model_copy(update={name: None for name in ("pooling", "normalise") if hasattr(options, name)})


def _with(task: Task, pooling: Pooling) -> Task:
    """The same fitted task with a head that pools so."""
    pooled = copy(task)
    pooled.pooling = pooling
    return pooled
