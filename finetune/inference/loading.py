"""Opens a model to be asked: a run's, an export, an adapter, or any model of transformers, with the task it is for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import InputError, bad_input
from finetune.core.paths import local_path
from finetune.core.progress import phase, say
from finetune.core.run_dir import RunDir, read_json, unfit
from finetune.inference.exports import is_export, open_export
from finetune.inference.kinds import ADVICE, adapter_task, said_labels, talking, task_of_config

if TYPE_CHECKING:
    import torch

    from finetune.recipe import Recipe
    from finetune.tasks.base import Task

ADAPTER = "adapter_config.json"
"""peft's file beside an adapter."""

ROW = {
    "name": "model",
    "seeds": 1,
    "data": {"train": {"path": "rows"}, "split": {"test": 0.5}},
    "strategy": {"type": "full"},
}
"""What a recipe has to say besides, of which a model in use needs nothing."""

SECTIONS = ("task", "model", "scoring")
"""Sections of a recipe that have a meaning for a model in use."""


@dataclass(frozen=True)
class OpenedModel:
    """A model as it was scored, and the task it answers."""

    source: str
    """What was asked for."""
    model: torch.nn.Module
    """In float32 on the CPU, in evaluation mode."""
    task: Task
    """With its tokenizer and its labels."""
    recipe: Recipe
    """Of a run its own; else one that says what is known."""
    decision: Mapping[str, float] = field(default_factory=dict)
    """What the task has decided by validation examples, such as a threshold."""
    run: Path | None = None
    """The run's folder; None: it is none."""
    compared: bool = True
    """Whether it is known what examples may share in this model."""

    @property
    def name(self) -> str:
        """Give a short name: of a run, its study, variant and seed."""
        if self.run is not None:
            return "/".join(self.run.resolve().parts[-3:])
        return self.source.rstrip("/").rpartition("/")[2] if Path(self.source).exists() else self.source

    @property
    def talks(self) -> bool:
        """Tell whether it continues text, so that one can talk with it."""
        return self.task.architecture == "AutoModelForCausalLM" and self.task.answer in ("text", None)


def open_model(source: str, overrides: Sequence[str] = ()) -> OpenedModel:
    """Open what ``source`` names: the folder of a run or of what several were combined into, an exported model, a peft
    adapter, any folder that transformers opens, `package:NAME/path`, a .gguf file, or a model on the hub.

    ``overrides`` are `key.path=value` of the recipe's sections task, model and scoring, such as `task.text=headline`.
    Raises :class:`InputError` where there is no such model, and where it is not known what it answers.
    """
    from finetune.runner.saved import DESCRIPTION

    place = local_path(source)
    with phase(f"loading {source}"):
        if place.is_dir():
            _refuse_study(place)
            inner = place / "model" if (place / "model").is_dir() else place
            if (inner / DESCRIPTION).is_file():
                return _of_run(source, place, inner, overrides)
            if (place / "result.json").exists():
                advice = "write train.save_model: true and run the study again; or export it from where it is kept"
                raise bad_input(None, f"{place} is a run without a saved model", advice)
            if is_export(place):
                known = open_export(place, partial(_completed, overrides=overrides))
                return OpenedModel(source, *known)
            if (place / ADAPTER).is_file():
                return _of_adapter(source, place, overrides)
        return _plain(source, overrides)


def _refuse_study(place: Path) -> None:
    """Refuse the folder of a study, or of a variant, which has several models."""
    found = sorted(str(path.parent) for depth in ("*", "*/*") for path in place.glob(f"{depth}/model"))
    known = (place / "resolved.yaml").exists() or (place.parent / "resolved.yaml").exists()
    if known and not (place / "result.json").exists() and not (place / "model").exists():
        advice = f"give one of them: {', '.join(found[:6])}{' …' if len(found) > 6 else ''}" if found else ""
        has = f"has {len(found)} saved models" if found else "has no saved model (train.save_model: true keeps them)"
        raise bad_input(None, f"{place} {has}, and is none itself", advice)


def _of_run(source: str, place: Path, inner: Path, overrides: Sequence[str]) -> OpenedModel:
    """Open a model with a description beside it."""
    from dataclasses import replace

    from finetune.runner.saved import open_run

    run = inner.parent if inner.name == "model" and (inner.parent / "result.json").exists() else None
    result = (RunDir(run).read_result() or {}) if run is not None else {}
    _refuse_unfit(place, result)
    saved = open_run(place, partial(changed, overrides=overrides))
    decision = result.get("decision") or saved.said.get("decision") or {}
    if decision and "unanswerable" not in saved.said.get("remembered", {}):
        saved.task.recall({**saved.said["config"], "unanswerable": True})
    found = OpenedModel(source, saved.model, saved.task, saved.recipe, decision, run)
    return replace(found, compared="sharing" in saved.said)


def _refuse_unfit(place: Path, result: Mapping[str, Any]) -> None:
    """Refuse a run that has no end, or one that nobody could use; say it of one that learnt no more than needs no
    training."""
    status = result.get("status")
    if why := unfit(result):
        resumed = "run the study's command again, which resumes it; or " if status == "interrupted" else ""
        raise bad_input(None, f"{place} {why}", f"{resumed}give a run of another seed")
    if status == "degenerate":
        say(f"{place} is {status}: it learnt no more than needs no training: {result.get('reason')}")


def changed(recipe: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Lay ``overrides`` over a ``recipe``. Raises InputError with every mistake in them."""
    from finetune.recipe.overrides import apply, parse_overrides
    from finetune.recipe.tree import Origin
    from finetune.recipe.validate import check, located
    from finetune.recipe.yaml_text import parse

    parsed, problems = parse_overrides(overrides)
    for override in parsed:
        if override.keys[0] not in SECTIONS:
            found = f"'{override.keys[0]}' is no section that a trained model can be told something of"
            raise bad_input(".".join(override.keys), found, f"choose from: {', '.join(SECTIONS)}")
    tree, _ = parse(json.dumps(recipe), lambda line: Origin("the model's recipe"))
    if tree is None:
        raise ValueError("a recipe was saved empty")
    tree = apply(tree, parsed, problems)
    checked, mistakes = check(tree) if not problems else (None, [])
    if checked is None:
        raise InputError(problems or located(tree, mistakes))
    plain: dict[str, Any] = tree.plain()
    return plain


def _completed(model: Mapping[str, Any], task: Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    """The recipe of a ``model`` and its ``task``, with what a person has said."""
    from finetune.recipe import Recipe

    return Recipe.model_validate(changed({**ROW, "model": dict(model), "task": dict(task)}, overrides))


def _recipe(source: str, task: Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    from finetune.recipe import Recipe

    known = {**ROW, "model": {"source": source}, "task": dict(task)}
    return Recipe.model_validate(changed(known, overrides))


def _task_said(overrides: Sequence[str], tokenizer: Any) -> dict[str, Any] | None:
    """Give what a task has to say that a person has chosen; None: nobody has chosen one."""
    if any(text.startswith("task=") for text in overrides):
        return {"type": "language"}  # which is replaced
    chosen = [text.partition("=")[2] for text in overrides if text.startswith("task.type=")]
    if not chosen:
        return None
    known = {"embedding": {"type": "embedding", "label": "label"}, "chat": talking(tokenizer)}
    return known.get(chosen[-1], {"type": "language"})


def _plain(source: str, overrides: Sequence[str]) -> OpenedModel:
    """Open a model that nothing is said of but by its own configuration."""
    from finetune import models

    chosen = _asked_options(source, overrides)
    config, tokenizer = models.load_config(chosen), models.load_tokenizer(chosen)
    recipe = _recipe(source, _task_said(overrides, tokenizer) or task_of_config(config, tokenizer, source), overrides)
    task = _fitted(recipe, tokenizer, config, partial(models.load_config, recipe.model))
    base = models.load_base(recipe.model, task.architecture, False, **_padding(tokenizer))
    if base.new:
        found = f"'{source}' has no weights for {min(base.new)}, as a model has that was not trained for {task.name}"
        raise bad_input("task.type", found, f"give a trained model, or {ADVICE}")
    model: Any = base.model
    if task.pooling is not None:
        model.pooling = task.pooling
    return OpenedModel(source, model.float().cpu().eval(), task, recipe, compared=False)


def _asked_options(source: str, overrides: Sequence[str]) -> Any:
    """How the model is to be read, before it is known what it answers."""
    from finetune.recipe import Recipe

    known = {**ROW, "model": {"source": source}, "task": {"type": "language"}}
    return Recipe.model_validate(changed(known, [text for text in overrides if text.startswith("model.")])).model


def _padding(tokenizer: Any) -> dict[str, Any]:
    return {"pad_token_id": tokenizer.pad_token_id}


def _fitted(recipe: Recipe, tokenizer: Any, config: Any, read_config: Callable[[], Any]) -> Task:
    """Make the task of a model that nothing is said of."""
    from finetune import models
    from finetune.core.registry import TASKS

    pooling = models.declared(recipe.model) if recipe.task.type == "embedding" else None
    kind = TASKS.get(recipe.task.type)
    task: Task = kind.fitted(recipe.task, tokenizer, said_labels(config), pooling, False, read_config)
    task.recall(config.to_dict())
    if recipe.task.type == "embedding":
        task = task.pooled(pooling or models.Pooling(mode="auto"))
    return task


def _of_adapter(source: str, place: Path, overrides: Sequence[str]) -> OpenedModel:
    """Open a peft adapter and the model that it belongs to."""
    from peft import PeftModel

    from finetune import models

    said = read_json(place / ADAPTER)
    base_name = said.get("base_model_name_or_path")
    if not base_name:
        raise bad_input(None, f"{place / ADAPTER} does not name its base model", "write base_model_name_or_path there")
    revision = said.get("revision")
    named = f"{base_name}@{revision}" if revision and not Path(base_name).exists() else base_name
    has_tokenizer = (place / "tokenizer_config.json").exists()
    more = [f"model.tokenizer={json.dumps(str(place))}"] if has_tokenizer else []
    chosen = _asked_options(named, [*more, *overrides])
    tokenizer = models.load_tokenizer(chosen)
    config = models.load_config(chosen, **adapter_task(place).config)
    said_task = _task_said(overrides, tokenizer) or adapter_task(place).task
    recipe = _recipe(named, said_task or task_of_config(config, tokenizer, source), [*more, *overrides])
    task = _fitted(recipe, tokenizer, config, lambda: config)
    settings = {**adapter_task(place).config, **_padding(tokenizer)}
    base = models.load_base(recipe.model, task.architecture, task.new_head, **settings)
    model = PeftModel.from_pretrained(base.model, str(place)).float().cpu().eval()
    return OpenedModel(source, model, task, recipe, compared=False)
