"""A run's saved model, ready to use: whatever the strategy, and whatever of it plain transformers cannot open."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.core.errors import bad_input
from finetune.core.run_dir import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from finetune.recipe import Recipe
    from finetune.runner.resources import TaskData
    from finetune.tasks.base import Task

DESCRIPTION = "finetune.json"
"""File beside a saved model that says what it was made of."""

FORMAT = 1


class LoadedModel(NamedTuple):
    """A model in float32 on the CPU, in evaluation mode, and its tokenizer."""

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase


class SavedRun(NamedTuple):
    """A model as it was scored, and what it was trained for."""

    model: torch.nn.Module
    """In float32 on the CPU, in evaluation mode."""
    task: Task
    """With its tokenizer, its labels, and what it has found in the training data."""
    recipe: Recipe
    said: dict[str, Any]
    """What :func:`write_description` has said of it."""
    place: Path
    """The folder with its weights."""


def write_description(recipe: Recipe, data: TaskData, folder: Path) -> None:
    """Say beside the model saved in ``folder`` what :func:`load_model` needs to make it again. An architecture that is
    not said is the task's own."""
    from finetune import models

    task = data.task
    said = {
        "format": FORMAT,
        "architecture": task.architecture if isinstance(task.architecture, str) else None,
        "config": task.model_config(),
        "labels": list(task.labels),
        "remembered": task.remembered(),
        "sharing": [task.batching.name, task.answering.name],
        "recipe": recipe.model_dump(mode="json"),
        "dtype": str(models.processor(recipe.model)[1]).removeprefix("torch."),
    }
    (folder / DESCRIPTION).write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_model(folder: str | Path) -> LoadedModel:
    """Load the model of a finished run, from the run's folder or its `model/`, with the outputs that it was scored by.

    A complete model (full tuning, LP-FT, a soup) needs nothing else; of others only what was trained is saved, and the
    base model is read from where the recipe found it. Raises :class:`InputError` where there is no saved model, or no
    base model any more.
    """
    found = open_run(folder)
    return LoadedModel(found.task.handed_over(found.model, found.said["config"]), found.task.tokenizer)


def open_run(folder: str | Path, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> SavedRun:
    """Load what :func:`load_model` does, with the task that the model was trained for, ready to be asked.

    ``change`` is given the recipe as it was saved, and gives the one to go by: other columns to read, say.
    """
    from transformers import AutoTokenizer

    from finetune.recipe import Recipe

    place = Path(folder)
    place = place / "model" if (place / "model").is_dir() else place
    said = read_description(place)
    plain = recipe_of(said)
    recipe = Recipe.model_validate(change(plain) if change else plain)
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    whole = (place / "config.json").exists()
    task = _task_of(said, recipe, place, tokenizer, whole)
    model = (_complete if whole else _made_again)(said, recipe, place, task).float().cpu().eval()
    return SavedRun(model, task, recipe, said, place)


def load_trained(folder: str | Path) -> LoadedModel:
    """Load the same model as the task has trained it, which a person may get otherwise: a regression in SDs."""
    found = open_run(folder)
    return LoadedModel(found.model, found.task.tokenizer)


def read_description(place: Path) -> dict[str, Any]:
    """Read what is said beside the model in folder ``place``. Raises InputError where that is nothing we know."""
    if not (place / DESCRIPTION).is_file():
        advice = "give a run's folder, such as runs/NAME/VARIANT/seed-0, of a study with train.save_model: true"
        raise bad_input(None, f"{place} holds no saved model: it has no {DESCRIPTION}", advice)
    said: dict[str, Any] = read_json(place / DESCRIPTION)
    if said["format"] != FORMAT:
        raise bad_input(None, f"{place / DESCRIPTION} has format {said['format']}", "use the version that wrote it")
    return said


def recipe_of(said: dict[str, Any]) -> dict[str, Any]:
    """Give the recipe in a description, with the arithmetic for further questions: float32 where that is what `auto`
    stood for, so that answers stay those that were scored, on whatever machine. Elsewhere `auto` is left to the
    machine: bfloat16 is many times slower where a processor only emulates it."""
    recipe: dict[str, Any] = said["recipe"]
    if recipe["model"]["dtype"] != "auto" or said.get("dtype") != "float32":  # what former versions did not say
        return recipe
    return {**recipe, "model": {**recipe["model"], "dtype": "float32"}}


def _task_of(
    said: dict[str, Any], recipe: Recipe, place: Path, tokenizer: PreTrainedTokenizerBase, whole: bool
) -> Task:
    """Make the task that a model was trained for. A model that is ``whole`` knows its own configuration."""
    from transformers import AutoConfig

    from finetune import models
    from finetune.core.registry import STRATEGIES, TASKS
    from finetune.models.pooled import read_pooling
    from finetune.tasks.batching import Batching

    read_config: Callable[[], Any] = partial(models.load_config, recipe.model)
    if whole:
        read_config = partial(
            AutoConfig.from_pretrained, place, local_files_only=True, trust_remote_code=recipe.model.trust_remote_code
        )
    pairs = STRATEGIES.get(recipe.strategy.type).pairs
    kind = TASKS.get(recipe.task.type)
    task: Task = kind.fitted(recipe.task, tokenizer, said["labels"], read_pooling(place), pairs, read_config)
    task.recall({**said["config"], **said.get("remembered", {})})
    sharing = said.get("sharing", [Batching.PADDED.name] * 2)  # what former versions did not say
    return task.sharing(*(Batching[name] for name in sharing))


def _complete(said: dict[str, Any], recipe: Recipe, place: Path, task: Task) -> torch.nn.Module:
    """Load a model from a folder that holds all weights."""
    from finetune.models.loading import class_of

    remote = {"trust_remote_code": True} if recipe.model.trust_remote_code else {}
    settings = {"dtype": "float32", "local_files_only": True, **remote}
    return class_of(said["architecture"] or task.architecture).from_pretrained(place, **settings)


def _made_again(said: dict[str, Any], recipe: Recipe, place: Path, task: Task) -> torch.nn.Module:
    """Make a model from the base model, and what was trained of it."""
    from finetune import models
    from finetune.core.randomness import Streams
    from finetune.runner.build import prepare

    config = dict(said["config"])
    if "id2label" in config:  # JSON has no numbers for keys
        config["id2label"] = {int(number): label for number, label in config["id2label"].items()}
    base = models.load_base(recipe.model, said["architecture"] or task.architecture, task.new_head, **config)
    streams = Streams(0)
    fresh = base.copy(streams)
    with streams.globally("init", 1):
        built = prepare(fresh, task, recipe.strategy, recipe.mitigations, recipe.train.optimizer, base.new)
    built.restore(place)
    return built.model
