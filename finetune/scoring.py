"""Scores a group of runs on the validation split while it trains, and on every held-out task afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.digests import text_digest, weights_digest
from finetune.evaluate import metrics, store
from finetune.evaluate.predict import predict, score
from finetune.group.group import Group
from finetune.run_dir import RunDir
from finetune.shared import TaskData
from finetune.strategies.base import trained_parameters
from finetune.surroundings import Surroundings
from finetune.train.state import Validation

if TYPE_CHECKING:
    from finetune.recipe import Recipe

Scores = dict[str, float]
"""By `task/metric`."""


def validate_with(group: Group, data: TaskData, recipe: Recipe, around: Surroundings) -> Validation | None:
    """How the validation split is scored during training; None without one."""
    if data.validation is None or recipe.train.evaluations == 0:
        return None
    examples, select = data.validation.examples, recipe.train.select
    wanted = list(dict.fromkeys(["loss", select, *(["accuracy"] if data.task.labels else [])]))
    # Generating answers at every evaluation would cost more than training does; only a metric that needs them asks.
    answers = bool(data.task.labels) or metrics.load(select).needs == "text"

    def score_now() -> list[dict[str, float]]:
        found = predict(group, data.task, examples, recipe.scoring.batch_size, around.quietly(), answers)
        return [score(predictions, wanted) for predictions in found]

    return Validation(score_now, select, metrics.load(select, "train.select").higher_is_better)


def score_held_out(
    group: Group, data: TaskData, recipe: Recipe, around: Surroundings, folders: Sequence[RunDir], model: str
) -> list[tuple[Scores, dict[str, float]]]:
    """Score every held-out task, and write each run's prediction store.

    Returns for each run its scores, and by task the mean over examples of the store's `score` column. ``model``
    identifies the base model: predictions that the store has of the same weights, data and options are not made again.
    """
    scores: list[Scores] = [{} for _ in folders]
    means: list[dict[str, float]] = [{} for _ in folders]
    weights = []
    for number in range(group.count):
        with group.alone(number) as alone:
            weights.append(weights_digest(trained_parameters(alone)))
    for task, encoded in data.held_out.items():
        batches = -(-len(encoded.examples) // recipe.scoring.batch_size)
        around.progress.start(f"scoring {task}", batches)
        fingerprint, options = data.facts["splits"][task]["fingerprint"], [recipe.scoring, recipe.task, recipe.strategy]
        about = [model, task, fingerprint, *options, around.dtype]
        keys = [text_digest(str([*about, own])) for own in weights]
        paths = [folder.predictions(task) for folder in folders]
        known = [store.read_if(path, key) for path, key in zip(paths, keys, strict=True)]
        found = [each for each in known if each is not None]
        if around.total(len(found)) < len(folders) * around.accelerator.num_processes:
            found = predict(group, data.task, encoded.examples, recipe.scoring.batch_size, around)
        for number, (predictions, path, key) in enumerate(zip(found, paths, keys, strict=True)):
            if around.accelerator.is_main_process:
                predictions.write(path, key)
            values = score(predictions, recipe.task.metrics)
            # A diverged model's likelihoods may not be numbers; its other scores still count.
            scores[number] |= {f"{task}/{name}": value for name, value in values.items() if math.isfinite(value)}
            means[number][task] = float(predictions.score.mean())
    return list(zip(scores, means, strict=True))
