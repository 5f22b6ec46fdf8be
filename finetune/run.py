"""THE MAIN PATH: one variant under one seed, from a recipe's options to a result on disk."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finetune import models
from finetune.errors import bad_input
from finetune.evaluate import metrics
from finetune.evaluate.predict import predict, score
from finetune.randomness import Streams
from finetune.registry import MITIGATIONS, STRATEGIES
from finetune.run_dir import FORMAT, write_json
from finetune.shared import TaskData
from finetune.strategies.base import Strategy, trained_parameters
from finetune.surroundings import Surroundings
from finetune.train.identity import check_distinct, identity
from finetune.train.loop import Trained, Validation, train
from finetune.train.meters import Phases

if TYPE_CHECKING:
    from finetune.recipe import Recipe, Variant

Scores = dict[str, float]
"""By `task/metric`."""


def run(
    variant: Variant,
    streams: Streams,
    data: TaskData,
    base: models.BaseModel,
    around: Surroundings,
    sisters: dict[int, dict[str, Any]],
    untuned: Scores | None,
) -> dict[str, Any]:
    """Train and score one run; write its `result.json`, last, and return it.

    ``sisters`` are the results of the variant's other seeds, ``untuned`` the base model's scores where they mean
    something. A run that was interrupted resumes from its checkpoint.
    """
    recipe, phases = variant.recipe, Phases(around.device)
    model, strategy = build(recipe, base, data, streams, around)
    start = identity(model, data.train.examples, recipe.train, streams)
    check_distinct(start, sisters)
    phases.end("load")
    validation = validate_with(model, data, recipe, around)
    [trained] = train(model, data.task, data.train.examples, recipe.train, [streams], around, validation)
    phases.end("train", trained.facts["seconds"])
    scores, right = score_held_out(model, data, recipe, around)
    phases.end("evaluate")
    status, reason = judge(trained, scores, right, data, recipe, untuned)
    result = {
        **opening(variant, streams.seed, status, reason),
        **phases.facts(),
        "parameters": count_parameters(model),
        "scores": scores,
        "training": trained.facts,
        "identity": start,
        "streams": streams.facts(),
    }
    return finish(result, strategy if recipe.train.save_model else None, model, data, around)


def build(
    recipe: Recipe, base: models.BaseModel, data: TaskData, streams: Streams, around: Surroundings
) -> tuple[torch.nn.Module, Strategy]:
    """The model as training starts from it: new parameters drawn, mitigations applied, what learns marked."""
    fresh = base.copy(streams)
    with streams.globally("init", 1):
        model, strategy = prepare(recipe, fresh, data, base.new)
    return settle(model, around), strategy


def settle(model: torch.nn.Module, around: Surroundings) -> torch.nn.Module:
    """Move the model to its device, frozen weights in the compute dtype.

    Weights that learn need float32's small steps; frozen ones are only multiplied with. Buffers stay as they are:
    rotary frequencies lose far positions in bfloat16.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else around.dtype)
    return model.to(around.device)


def prepare(
    recipe: Recipe, model: Any, data: TaskData, new: frozenset[str] = frozenset()
) -> tuple[torch.nn.Module, Strategy]:
    """Apply the recipe's mitigations and strategy to a fresh model. Works on weightless models too."""
    data.task.check_model(model)
    head = models.head_parameters(model, new) if data.task.new_head else set(new)
    changed: dict[str, torch.nn.Parameter] = {}
    for number, options in enumerate(recipe.mitigations):
        names = MITIGATIONS.get(options.type)(options).prepare(model, head, f"mitigations.{number}")
        changed |= {name: model.get_parameter(name) for name in names}
    strategy: Strategy = STRATEGIES.get(recipe.strategy.type)(recipe.strategy)
    prepared = strategy.prepare(model, head)
    if frozen := [name for name, parameter in changed.items() if not parameter.requires_grad]:
        found = f"changes weights that strategy '{recipe.strategy.type}' leaves frozen, such as {frozen[0]}"
        raise bad_input("mitigations", found, "use strategy full, or a partial one that trains them")
    return prepared, strategy


def validate_with(model: torch.nn.Module, data: TaskData, recipe: Recipe, around: Surroundings) -> Validation | None:
    """How the validation split is scored during training; None without one."""
    if data.validation is None or recipe.train.evaluations == 0:
        return None
    examples, select = data.validation.examples, recipe.train.select
    wanted = list(dict.fromkeys(["loss", select, *(["accuracy"] if data.task.labels else [])]))
    # Generating answers at every evaluation would cost more than training does; only a metric that needs them asks.
    answers = bool(data.task.labels) or metrics.load(select).needs == "text"

    def score_now() -> list[dict[str, float]]:
        found = predict(model, data.task, examples, recipe.scoring.batch_size, around.quietly(), answers)
        return [score(found, wanted)]

    return Validation(score_now, select, metrics.load(select, "train.select").higher_is_better)


def score_held_out(
    model: torch.nn.Module, data: TaskData, recipe: Recipe, around: Surroundings
) -> tuple[Scores, dict[str, float]]:
    """Score every held-out task, and write the prediction store.

    Returns the scores, and by task the mean over examples of the store's `score` column.
    """
    scores: Scores = {}
    means = {}
    for task, encoded in data.held_out.items():
        batches = -(-len(encoded.examples) // recipe.scoring.batch_size)
        around.progress.start(f"scoring {task}", batches)
        predictions = predict(model, data.task, encoded.examples, recipe.scoring.batch_size, around)
        if around.accelerator.is_main_process:
            predictions.write(around.folder.predictions(task))
        found = score(predictions, recipe.task.metrics)
        # A diverged model's likelihoods may not be numbers; its other scores still count.
        scores |= {f"{task}/{name}": value for name, value in found.items() if math.isfinite(value)}
        means[task] = float(predictions.score.mean())
    return scores, means


def judge(
    trained: Trained,
    scores: Scores,
    means: dict[str, float],
    data: TaskData,
    recipe: Recipe,
    untuned: Scores | None,
) -> tuple[str, str | None]:
    """Status and reason: `diverged`; `degenerate`, when training has not beaten what needs none; or `finished`."""
    if trained.diverged:
        return "diverged", trained.diverged
    task = next(iter(data.held_out))
    majority = data.majority[task]
    if majority is not None and means[task] <= majority:
        found = f"accuracy {means[task]:.3f} on '{task}'"
        return "degenerate", f"{found}; always giving the commonest label gets {majority:.3f}"
    headline = recipe.task.metrics[0]
    if untuned and (key := f"{task}/{headline}") in untuned and key in scores:
        gain = scores[key] - untuned[key]
        if (gain if metrics.load(headline).higher_is_better else -gain) <= 0:
            found = f"{headline} {scores[key]:.4g} on '{task}'"
            return "degenerate", f"{found}; the untuned base model has {untuned[key]:.4g}"
    return "finished", None


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """How many there are, and how many learn."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"total": total, "trainable": sum(value.numel() for value in trained_parameters(model).values())}


def opening(variant: Variant, seed: int | None, status: str, reason: str | None) -> dict[str, Any]:
    """The first keys of every `result.json`."""
    strategy = variant.recipe.strategy.type if seed is not None else "none"
    return {
        "format": FORMAT,
        "variant": variant.name,
        "seed": seed,
        "digest": variant.digest,
        "strategy": strategy,
        "status": status,
        "reason": reason,
    }


def finish(
    result: dict[str, Any], strategy: Strategy | None, model: torch.nn.Module, data: TaskData, around: Surroundings
) -> dict[str, Any]:
    """Save the model where wanted, drop the checkpoints that are no longer needed, and write the result, last."""
    if around.accelerator.is_main_process:
        folder = around.folder
        if strategy is not None:
            save_model(strategy, model, data, folder.model)
        write_json(folder.result, result)
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    around.accelerator.wait_for_everyone()
    return result


def save_model(strategy: Strategy, model: torch.nn.Module, data: TaskData, folder: Path) -> None:
    """Write what was trained, and the tokenizer; a crash leaves no half-written model under this name."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    strategy.save(model, temporary)
    data.task.tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def score_untuned(
    variant: Variant, base: models.BaseModel, data: TaskData, around: Surroundings, known: Scores | None = None
) -> dict[str, Any]:
    """Score the base model as it is, and write its `result.json`, with the scores that are ``known`` already.

    Means nothing when the model has a new head.
    """
    phases = Phases(around.device)
    model = settle(base.copy(Streams(0)).requires_grad_(False), around)
    phases.end("load")
    scores, _ = score_held_out(model, data, variant.recipe, around)
    phases.end("evaluate")
    result = {
        **opening(variant, None, "finished", None),
        **phases.facts(),
        "parameters": count_parameters(model),
        "scores": {**(known or {}), **scores},
        "training": None,
        "identity": None,
        "streams": None,
    }
    return finish(result, None, model, data, around)
