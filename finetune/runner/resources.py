"""The resources that the runs of a study share, loaded once: data, tokenizer, encoded examples, the base model."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pyarrow as pa

from finetune import models
from finetune.core.compute import Attention
from finetune.core.digests import text_digest
from finetune.core.encoded import Encoded, Examples
from finetune.core.progress import phase
from finetune.core.registry import STRATEGIES, TASKS
from finetune.data import Splits, cache, load_splits
from finetune.data.sources import as_dataset, as_table
from finetune.models import Pooling
from finetune.runner.sets import EvaluationSets, reading_of
from finetune.tasks.base import Task
from finetune.tasks.trivial import Trivial

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.recipe import Recipe

T = TypeVar("T")

DATED = ("strftime_now", "date_string")
"""What chat templates that show the day have."""


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
    """`splits`, `duplicates_dropped`, `pool` and `leaks` of the study's `data.json`."""
    trivial: dict[str, Trivial | None] = field(default_factory=dict)
    """For each held-out set, what always giving the same answer scores."""
    learnt: dict[str, Dataset] = field(default_factory=dict)
    """The training examples, and those of the validation split where there is one, as they were read."""
    own: dict[str, Task] = field(default_factory=dict)
    """The tasks of the held-out sets that are scored on one of their own."""
    at: dict[str, str] = field(default_factory=dict)
    """The recipe path of every set of examples, by name."""

    @property
    def shared(self) -> dict[str, Encoded]:
        """Give the held-out sets that are scored on the task that is learnt."""
        return {name: encoded for name, encoded in self.held_out.items() if name not in self.own}

    def task_of(self, held_out: str) -> Task:
        """Give the task that a held-out set is scored on."""
        return self.own.get(held_out, self.task)

    def with_tasks(self, change: Callable[[Task], Task]) -> TaskData:
        """Give the same data with every task as ``change`` makes it."""
        return replace(self, task=change(self.task), own={name: change(task) for name, task in self.own.items()})

    @property
    def sets(self) -> dict[str, Encoded]:
        """Give all sets of examples that there are, by name."""
        return {"train": self.train, **({"validation": self.validation} if self.validation else {}), **self.held_out}


class Resources:
    """Loads on first use, and keeps what it loaded for the runs that need the same."""

    def __init__(self, today: date | None = None) -> None:
        self.today = today or date.today()
        """The study's date: the day it was begun."""
        self._kept: dict[str, Any] = {}

    def data(self, recipe: Recipe, split_seed: int, of: Recipe | None = None) -> TaskData:
        """Load the recipe's data, split, checked and encoded for its task. Raises InputError for data that cannot
        serve.

        ``of``: the recipe whose training and validation examples these are, split as its own task has them split, and
        nothing is held out: for a stage before it.
        """
        # How a head pools has no part in what is read and encoded.
        plain = recipe.model_copy(update={"task": _unpooled(recipe.task)})
        source, pairs = [recipe.model.source, recipe.model.tokenizer], STRATEGIES.get(recipe.strategy.type).pairs
        others = None if of is None else of.model_copy(update={"task": _unpooled(of.task)})
        whose = [] if others is None else [*others.sets, others.task]
        wanted = [recipe.data, *recipe.sets, plain.task, *source, pairs, split_seed, *whose]
        data = self.once("data", wanted, lambda: self._load_data(plain, split_seed, others))
        pooling = pooling_of(recipe.model, recipe.task, recipe.strategy)
        if pooling is None:
            return data
        return self.once("pooled", [*wanted, pooling], lambda: data.with_tasks(lambda task: task.pooled(pooling)))

    def base(self, options: models.ModelOptions, task: Task, attention: Attention = "auto") -> models.BaseModel:
        """The base model with the task's head, as every run starts from it, with this kernel of ``attention``."""
        config, built = task.model_config() | models.attention_config(attention), task.architecture
        # A head of the task's own may depend on its options.
        known = [built.name, task.options] if isinstance(built, models.OwnHead) else [built]

        def load() -> models.BaseModel:
            with phase(f"loading {options.source}"):
                return models.load_base(options, built, task.new_head, **config)

        return self.once("base", [options, *known, config], load)

    def _task(self, recipe: Recipe) -> Task:
        pairs, config = STRATEGIES.get(recipe.strategy.type).pairs, partial(models.load_config, recipe.model)
        task: Task = TASKS.get(recipe.task.type)(recipe.task, pairs=pairs, today=self.today, config=config)
        return task

    def _splits(self, recipe: Recipe, split_seed: int, task: Task) -> tuple[str | None, Splits]:
        """Give the recipe's data, split, and the key under which they are kept."""
        sets = EvaluationSets(recipe, task, self.today, partial(models.load_config, recipe.model))
        held_out = {entry.name: entry.data for entry in recipe.evaluate}
        # The whole task, because it checks its own columns while the data are read.
        wanted = [recipe.data, *recipe.evaluate, recipe.task, split_seed]
        sources = [*recipe.data.sources.items(), *((f"evaluate.{name}.data", each) for name, each in held_out.items())]
        made_by = [source_of(each) for each in (task, *sets.tasks.values())]
        key = self.once("key", wanted, lambda: cache.key_of(sources, [*wanted, *made_by]))
        splits: Splits = self.once(
            "splits",
            wanted,
            lambda: kept_splits(
                key, lambda: load_splits(recipe.data, held_out, split_seed, reading_of(task), sets.readings())
            ),
        )
        return key, splits

    def _examples_of(self, recipe: Recipe, split_seed: int, task: Task) -> tuple[str | None, Splits]:
        """Give what the recipe learns from, for another ``task``, and the key under which it is kept."""
        key, splits = self._splits(recipe, split_seed, self._task(recipe))

        def own(data: Dataset, at: str) -> Dataset:
            converted = task.converted(data, at)
            task.check(converted, at)
            return converted

        train = own(splits.train, "data.train")
        validation = None if splits.validation is None else own(splits.validation, splits.at("validation"))
        kept = {name: facts for name, facts in splits.facts["splits"].items() if name not in splits.held_out}
        found = Splits(train, validation, {}, splits.facts | {"splits": kept}, splits.stratified)
        return key and cache.deeper(key, ["of", task.options, source_of(task)]), found

    def _load_data(self, recipe: Recipe, split_seed: int, of: Recipe | None) -> TaskData:
        task, pairs = self._task(recipe), STRATEGIES.get(recipe.strategy.type).pairs
        config = partial(models.load_config, recipe.model)
        task.check_config()
        if of is None:
            key, splits = self._splits(recipe, split_seed, task)
        else:
            key, splits = self._examples_of(of, split_seed, task)
        sets = EvaluationSets(recipe, task, self.today, config)
        splits = sets.with_documents(splits, self.once)
        tokenizer = self.once(
            "tokenizer", [recipe.model.source, recipe.model.tokenizer], lambda: models.load_tokenizer(recipe.model)
        )
        task.fit(sets.without(splits), tokenizer)
        sets.fit(splits, tokenizer)

        def encode(data: Dataset, at: str, training: bool = False, by: Task = task) -> Encoded:
            if by.asks:  # what is asked is not in its table alone
                return by.encode(data, at, training)
            shown = key and cache.deeper(key, [at, training, pairs, *shown_by(tokenizer, config(), self.today)])
            return kept_encoded(shown, lambda: by.encode(data, at, training))

        at = {name: splits.at(name) for name in ("train", "validation")}
        at |= {name: sets.place_of(name, splits) for name in splits.held_out}
        encoded = {name: encode(data, at[name], by=sets.task_of(name)) for name, data in splits.held_out.items()}
        train = encode(splits.train, at["train"], training=True)
        validation = encode(splits.validation, at["validation"]) if splits.validation else None
        every = {"train": train, **({"validation": validation} if validation else {}), **encoded}
        facts = splits.facts | {
            "splits": {name: {**facts, "facts": every[name].facts} for name, facts in splits.facts["splits"].items()}
        }
        majority = {name: sets.task_of(name).majority(found.examples) for name, found in encoded.items()}
        learnt = {"train": splits.train, **({"validation": splits.validation} if splits.validation else {})}
        trivial = {name: sets.task_of(name).trivial(found.examples) for name, found in encoded.items()}
        return TaskData(
            task, train, validation, encoded, splits.held_out, majority, facts, trivial, learnt, sets.tasks, at
        )

    def once(self, kind: str, wanted: list[Any], load: Callable[[], T]) -> T:
        """Call ``load``, or give its result from when the same was wanted before."""
        key = json.dumps([kind, *wanted], sort_keys=True, default=lambda options: options.model_dump(mode="json"))
        if key not in self._kept:
            self._kept[key] = load()
        return self._kept[key]


def kept_splits(key: str | None, make: Callable[[], Splits]) -> Splits:
    """The splits that ``make`` gives, mapped where they are kept under this ``key``."""
    if key is None:
        return make()

    def write() -> cache.Kept:
        made = make()
        sets = {"train": made.train, **({"validation": made.validation} if made.validation else {}), **made.held_out}
        tables = {name: as_table(data) for name, data in sets.items()}
        return tables, {"facts": made.facts, "stratified": made.stratified, "validation": made.validation is not None}

    tables, known = cache.kept(key, write)
    sets = {name: as_dataset(table) for name, table in tables.items()}
    train, validation = sets.pop("train"), sets.pop("validation") if known["validation"] else None
    return Splits(train, validation, sets, known["facts"], known["stratified"])


def kept_encoded(key: str | None, make: Callable[[], Encoded]) -> Encoded:
    """The examples that ``make`` gives, mapped where they are kept under this ``key``."""
    if key is None:
        return make()

    def write() -> cache.Kept:
        made = make()
        rows = {} if made.rows is None else {"rows": pa.table({"row": made.rows})}
        return {"examples": made.examples.table} | rows, {"facts": made.facts, "notes": made.notes}

    tables, known = cache.kept(key, write)
    rows = tables["rows"]["row"].to_numpy() if "rows" in tables else None
    return Encoded(Examples(tables["examples"]), known["facts"], rows, known["notes"])


def source_of(task: Task) -> str:
    """Compute a digest of the file that a task is in, which may be another package's, and be worked on."""
    return text_digest(inspect.getsource(inspect.getmodule(type(task)) or type(task)))


def shown_by(tokenizer: PreTrainedTokenizerBase, config: Any, today: date) -> list[Any]:
    """List what decides which tokens a model is shown for a text: the tokenizer itself, its limits and its chat
    template, the day where that shows one, and the model's configuration, by which tasks hide words or do not."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    words = sorted(tokenizer.get_vocab().items()) if inner is None else json.loads(inner.to_str())
    if isinstance(words, dict):
        words |= {"truncation": None, "padding": None}  # how it was last called
    known = [type(tokenizer).__name__, words, tokenizer.init_kwargs, tokenizer.chat_template]
    day = str(today) if any(word in str(tokenizer.chat_template) for word in DATED) else None
    return [text_digest(str(known)), day, text_digest(config.to_json_string())]


def asked_pooling(task: Any, strategy: Any) -> str:
    """Give the pooling that the recipe's task, or else its strategy, asks of a new head; `model` where the task has no
    such option."""
    if "pooling" not in type(task).model_fields:
        return "model"
    return task.pooling or STRATEGIES.get(strategy.type)(strategy).pooling


def pooling_of(model: models.ModelOptions, task: Any, strategy: Any) -> Pooling | None:
    """Give the pooling of a recipe's head of our own, as far as it is known without weights; None: the architecture's.

    Raises InputError for files of the model that cannot be read.
    """
    asked, normalise = asked_pooling(task, strategy), getattr(task, "normalise", None)
    if asked == "model":
        return None
    if asked != "auto":
        return Pooling(mode=cast(Any, asked), normalise=bool(normalise), reason="the recipe says so")
    found = models.declared(model) or Pooling(mode="auto")
    return found if normalise is None else found.model_copy(update={"normalise": normalise})


def _unpooled(options: Any) -> Any:
    """Drop pooling from a task's options."""
    return options.model_copy(update={name: None for name in ("pooling", "normalise") if hasattr(options, name)})
