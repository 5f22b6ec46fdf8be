"""A run's saved model, ready to use: whatever the strategy, and whatever of it plain transformers cannot open."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.core.errors import bad_input

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


def write_description(recipe: Recipe, data: TaskData, folder: Path) -> None:
    """Say beside the model saved in ``folder`` what :func:`load_model` needs to make it again. An architecture that is
    not said is the task's own."""
    task = data.task
    said = {
        "format": FORMAT,
        "architecture": task.architecture if isinstance(task.architecture, str) else None,
        "config": task.model_config(),
        "labels": list(task.labels),
        "recipe": recipe.model_dump(mode="json"),
    }
    (folder / DESCRIPTION).write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_model(folder: str | Path) -> LoadedModel:
    """Load the model of a finished run, from the run's folder or its `model/`, with the outputs that it was scored by.

    A complete model (full tuning, LP-FT, a soup) needs nothing else; of others only what was trained is saved, and the
    base model is read from where the recipe found it. Raises :class:`InputError` where there is no saved model, or no
    base model any more.
    """
    place = Path(folder)
    place = place / "model" if (place / "model").is_dir() else place
    if not (place / DESCRIPTION).is_file():
        advice = "give a run's folder, such as runs/NAME/VARIANT/seed-0, of a study with train.save_model: true"
        raise bad_input(None, f"{place} holds no saved model: it has no {DESCRIPTION}", advice)
    said = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))
    if said["format"] != FORMAT:
        raise bad_input(None, f"{place / DESCRIPTION} has format {said['format']}", "use the version that wrote it")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    model = _complete(said, place) if (place / "config.json").exists() else _made_again(said, place, tokenizer)
    model = _task_of(said).handed_over(model.float().cpu().eval(), said["config"])
    return LoadedModel(model, tokenizer)


def _complete(said: dict[str, Any], place: Path) -> torch.nn.Module:
    """Load a model from a folder that holds all weights."""
    from finetune.models.loading import class_of

    remote = said["recipe"]["model"]["trust_remote_code"]
    settings = {"dtype": "float32", "local_files_only": True, **({"trust_remote_code": True} if remote else {})}
    return class_of(said["architecture"] or _task_of(said).architecture).from_pretrained(place, **settings)


def _task_of(said: dict[str, Any]) -> Task:
    """The task that the model was made for, as far as its options say it."""
    from finetune.core.registry import TASKS
    from finetune.recipe import Recipe

    options = Recipe.model_validate(said["recipe"]).task
    task: Task = TASKS.get(options.type)(options)
    return task


def _made_again(said: dict[str, Any], place: Path, tokenizer: PreTrainedTokenizerBase) -> torch.nn.Module:
    """Make a model from the base model, and what was trained of it."""
    from finetune import models
    from finetune.core.randomness import Streams
    from finetune.core.registry import STRATEGIES
    from finetune.models.pooled import read_pooling
    from finetune.recipe import Recipe
    from finetune.runner.build import prepare

    recipe, kind = Recipe.model_validate(said["recipe"]), type(_task_of(said))
    pairs = STRATEGIES.get(recipe.strategy.type).pairs
    read_config = partial(models.load_config, recipe.model)
    task = kind.fitted(recipe.task, tokenizer, said["labels"], read_pooling(place), pairs, read_config)
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
