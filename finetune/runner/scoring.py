"""Scores a group of runs on the validation split while it trains, and on every held-out task afterwards."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from finetune.core.digests import form_digest, text_digest, weights_digest
from finetune.core.encoded import Encoded
from finetune.core.examples import Example
from finetune.core.progress import phase
from finetune.core.run_dir import RunDir
from finetune.core.runtime import Runtime
from finetune.evaluate import metrics, store
from finetune.evaluate.predict import predict, predictions_of
from finetune.evaluate.store import Predictions
from finetune.metrics.base import Metric
from finetune.replicas.group import ReplicaGroup
from finetune.runner.reference import Reference, needs_reference
from finetune.runner.resources import TaskData
from finetune.strategies.base import trained_parameters
from finetune.tasks.base import Task
from finetune.train.state import Validation

if TYPE_CHECKING:
    from finetune.recipe import Recipe

Scores = dict[str, float]
"""By `task/metric`."""


class Scored(NamedTuple):
    """The scores of a run on its held-out tasks."""

    scores: Scores
    measured: dict[str, np.ndarray]
    """By task, (examples,) in their order: what is held against an answer that needs no learning."""
    latency: dict[str, float]
    """By task, seconds that an example took, at `scoring.batch_size`: a run's share of those of its group. Only where
    the whole model was run: not for predictions that were stored, nor from what a frozen prefix had stored."""
    decision: dict[str, float]
    """What the task has decided by the validation split, such as a threshold; empty where there is nothing to."""


def validate_with(
    group: ReplicaGroup,
    task: Task,
    examples: Sequence[Example],
    select: str,
    size: int,
    runtime: Runtime,
    reference: Reference | None = None,
) -> Validation:
    """Describe the scoring of the validation split's ``examples`` during training, ``size`` at once. ``select`` names
    the metric that picks the weights to keep; ``reference`` is what it may compare with."""
    # Generating answers at every evaluation would cost more than training does; only a metric that needs them asks.
    generated = task.answer == "text"
    answers = not generated or bool({"prediction", "extracted"} & set(metrics.load(select).columns))
    compared = reference if needs_reference([select]) else None
    wanted = list(dict.fromkeys(["loss", select, *([] if generated else [task.example_score])]))

    def score_now() -> list[dict[str, float]]:
        found = predict(group, task, examples, size, runtime, answers, "validating")
        found = compared.rewarded(found, examples) if compared else found
        return [metrics.score(predictions, wanted) for predictions in found]

    return Validation(score_now, select, metrics.load(select, "train.select").higher_is_better)


def decisions_of(
    group: ReplicaGroup, data: TaskData, recipe: Recipe, runtime: Runtime, known: Sequence[Mapping[str, float] | None]
) -> list[dict[str, float]]:
    """Let the task decide for each run, by its predictions for the validation split, how others become answers.

    ``known`` are decisions that were made before, and stay. Empty ones where nothing is to be decided, or nothing tells
    how.
    """
    if not data.task.decides or data.validation is None:
        return [{} for _ in known]
    kept = [dict(each) for each in known if each]
    if len(kept) == len(known):
        return kept
    examples = data.validation.examples
    found = predictions_of(group, data.task, examples, recipe.scoring.batch_size, runtime, title="deciding")
    return [data.task.decide(examples, own) for own in found]


def score_held_out(
    group: ReplicaGroup,
    data: TaskData,
    recipe: Recipe,
    runtime: Runtime,
    folders: Sequence[RunDir],
    model: str,
    known: Sequence[Mapping[str, float] | None] | None = None,
    reference: Reference | None = None,
) -> list[Scored]:
    """Score every held-out task, and write each run's prediction store.

    ``model`` identifies the base model: predictions that the store has of the same weights, data and options are not
    made again. ``known`` are the runs' decisions, where they have been scored before: see :func:`decisions_of`.
    ``reference`` is what rewards are measured from, where a metric asks for them.
    """
    decisions = decisions_of(group, data, recipe, runtime, known or [None] * len(folders))
    scored = [Scored({}, {}, {}, decision) for decision in decisions]
    weights = []
    for number in range(group.count):
        with group.alone(number) as alone:
            weights.append([weights_digest(trained_parameters(alone)), form_digest(alone, dict(alone.named_buffers()))])
    for task, encoded in data.held_out.items():
        asked = data.task_of(task)
        options = recipe.task if asked is data.task else asked.options
        about = [model, task, data.facts["splits"][task]["fingerprint"]]
        about += _about(asked, encoded, recipe.model_copy(update={"task": options}), runtime)
        decided = decisions if type(asked) is type(data.task) else [{}] * len(decisions)
        keys = [
            text_digest(str([*about, *own, *([decision] if decision else [])]))
            for own, decision in zip(weights, decided, strict=True)
        ]
        paths = [folder.predictions(task) for folder in folders]
        stored = [store.read_if(path, key) for path, key in zip(paths, keys, strict=True)]
        found = [each for each in stored if each is not None]
        if runtime.all_reduce_sum(len(found)) < len(folders) * runtime.accelerator.num_processes:
            begun = time.perf_counter()
            size, title = recipe.scoring.batch_size, f"scoring {task}"
            found = predict(group, asked, encoded.examples, size, runtime, title=title, decisions=decided)
            spent = (time.perf_counter() - begun) * runtime.accelerator.num_processes
            for each in scored if group.prefix is None else []:
                each.latency[task] = spent / len(encoded.examples) / group.count
            if reference is not None and needs_reference(asked.metrics):
                found = replace(reference, task=asked).rewarded(found, encoded.examples)
        found = [metrics.with_own(each, asked.metrics) for each in found]
        for number, (predictions, path, key) in enumerate(zip(found, paths, keys, strict=True)):
            if runtime.accelerator.is_main_process:
                with phase("writing predictions"):
                    predictions.write(path, key)
            scored[number].scores.update(scores_on(task, predictions, asked.metrics))
            order = predictions.example.argsort()  # the store may have them in another one
            rows = order[np.searchsorted(predictions.example, encoded.examples.numbers, sorter=order)]
            scored[number].measured[task] = asked.measured(predictions.columns())[rows]
    return scored


def scores_on(task: str, predictions: Predictions, names: Sequence[str | Metric]) -> Scores:
    """Compute the metrics ``names`` of predictions on the held-out set ``task``."""
    values = metrics.score(predictions, names)
    # A diverged model's likelihoods may not be numbers; its other scores still count.
    return {f"{task}/{name}": value for name, value in values.items() if math.isfinite(value)}


def _about(task: Task, encoded: Encoded, recipe: Recipe, runtime: Runtime) -> list[Any]:
    """List all but weights that predictions depend on: options, what the model is shown and how, and what computes
    it."""
    sections = (recipe.scoring, recipe.task, recipe.strategy, recipe.model)
    options = [section.identifying() for section in sections]
    for place in ("source", "tokenizer"):  # which are known by what is in them
        options[-1].pop(place)
    words = text_digest(str([sorted(task.tokenizer.get_vocab().items()), task.tokenizer.all_special_ids]))
    sharing = [task.batching.name, str(getattr(task, "answering", None)), str(task.pooling)]
    versions = [torch.__version__, *map(version, ("transformers", "peft", "tokenizers", *task.packages))]
    return [*options, words, _shown(encoded), *sharing, runtime.device.type, runtime.dtype, *versions]


def _shown(encoded: Encoded) -> str:
    """Hash what the model is shown, after templates and tokenizer, and what its answers are compared with."""
    digest = hashlib.blake2b(digest_size=16)
    for example in encoded.examples:
        arrays = {**example.inputs, "target": example.target, "prompt": example.prompt}
        if example.branch is not None:
            arrays |= {"branch": example.branch, "sizes": example.sizes}
        for name, value in arrays.items():
            digest.update(name.encode() + b"|")
            digest.update(b"-" if value is None else np.ascontiguousarray(value).tobytes())
        digest.update(f"|{example.number}|{example.reference}|{example.frame}|{example.rejected}|".encode())
        if example.document is not None:
            digest.update(f"{example.document.text}|{example.document.starts.tolist()}|".encode())
    return digest.hexdigest()
