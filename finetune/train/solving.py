"""Puts a solved head into a model, and finds out how a head of our own is to pool where nobody has said it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from finetune.core.examples import Example, lengths_of, weights_of
from finetune.core.randomness import Streams
from finetune.core.runtime import Runtime
from finetune.models import BaseModel, Pooling
from finetune.models.pooled import HEAD, PooledForSequenceClassification, pooled_in
from finetune.strategies.base import single_linear, trained_parameters
from finetune.tasks.base import Task
from finetune.train.features import extract, looks_back_only
from finetune.train.probe import Probe, fit
from finetune.train.ridge import fit_ridge
from finetune.train.state import Trained

MODES = ("mean", "cls", "max")
"""What is tried where neither files nor the model say how to pool: what a first token has been trained for, and what
needs no training."""


def settle_pooling(
    model: torch.nn.Module,
    base: BaseModel,
    task: Task,
    examples: Sequence[Example],
    size: int,
    streams: Streams,
    runtime: Runtime,
    familiar: bool = False,
) -> None:
    """Decide how the head of our own in ``model`` pools, where it has one and that is still to be found out."""
    pooled = pooled_in(model)
    if pooled is not None and not pooled.pooling.settled:
        frozen: Any = base.copy(Streams(0)).requires_grad_(False)
        frozen.to(runtime.device)
        frozen.pooling = pooled.pooling
        about = (base, task, examples, size, streams, runtime, familiar)
        pooled.pooling, _ = _find(frozen, HEAD, True, *about)


def solve_head(
    model: torch.nn.Module,
    base: BaseModel,
    task: Task,
    examples: Sequence[Example],
    size: int,
    streams: Streams,
    runtime: Runtime,
    familiar: bool = False,
) -> Trained:
    """Put into ``model`` the linear head that fits ``examples`` best: all that learns in it. ``familiar``: the base
    model has learnt from these very examples."""
    begun = time.perf_counter()
    head = single_linear(model, set(trained_parameters(model)))
    assert head is not None, "the strategy has seen to it"
    layer: Any = model.get_submodule(head)
    about = (base, task, examples, size, streams, runtime, familiar)
    pooling, probe = _find(model, head, layer.bias is not None, *about)
    if isinstance(model, PooledForSequenceClassification):
        model.pooling = pooling
    with torch.no_grad():
        layer.weight.copy_(probe.weights)
        if layer.bias is not None:
            layer.bias.copy_(probe.biases)
    tokens = int(lengths_of(examples).sum())
    seconds = time.perf_counter() - begun
    facts = {"steps": probe.facts["steps"], "examples": len(examples), "tokens": tokens, "resumed": 0, "replicas": 1}
    speed = {"tokens_per_second": round(tokens / seconds, 1), "utilisation": None, "flops": None}
    return Trained(None, {**facts, **speed, "seconds": round(seconds, 3), "solved": probe.facts})


def _find(
    model: Any,
    head: str,
    intercept: bool,
    base: BaseModel,
    task: Task,
    examples: Sequence[Example],
    size: int,
    streams: Streams,
    runtime: Runtime,
    familiar: bool = False,
) -> tuple[Pooling, Probe]:
    """Find how to pool, and the solved head for it. All processes get the same; it is found once for the same
    examples."""
    asked: Pooling = task.pooling or Pooling(mode="auto", normalise=False, reason="the architecture's own")
    own = isinstance(model, PooledForSequenceClassification)
    modes, why = _modes(model, asked, examples, runtime) if own else (("model",), asked.reason)
    features = features_of(model, head, base, task, examples, modes, size, runtime)
    normalise = asked.normalise if own else False
    key = ("solved", id(examples), modes, normalise, streams.seed_of("split"), str(runtime.dtype))
    if key not in base.kept:
        main = runtime.accelerator.is_main_process
        probe = _fitted(features, normalise, task, examples, intercept, streams, runtime, familiar) if main else None
        base.kept[key] = runtime.broadcast(probe)
        found = base.kept[key]
        if own and not asked.settled:
            runtime.progress.say(f"{runtime.title} · pooling: {_pooling(found, why)}, {why or found.why}")
    found = base.kept[key]
    return (_pooling(found, why or found.why) if own else asked), found


def _fitted(
    features: Mapping[str, torch.Tensor],
    normalise: bool | None,
    task: Task,
    examples: Sequence[Example],
    intercept: bool,
    streams: Streams,
    runtime: Runtime,
    familiar: bool,
) -> Probe:
    """Fit a probe for the kind of answer that ``task`` has: one label of several, or numbers."""
    targets = [example.target for example in examples]
    if task.labels:
        counts, count = weights_of(examples), len(task.labels)
        weights = counts if (counts != 1).any() else None
        return fit(features, normalise, targets, count, intercept, streams, runtime, weights, familiar)
    return fit_ridge(features, normalise, targets, intercept, runtime, familiar)


def _pooling(found: Probe, why: str) -> Pooling:
    return Pooling(mode=found.mode, normalise=found.normalised, reason=why)  # type: ignore[arg-type]


def _modes(
    model: PooledForSequenceClassification, asked: Pooling, examples: Sequence[Example], runtime: Runtime
) -> tuple[tuple[str, ...], str]:
    """List the pooling modes to try, and the reason, where it decides; it is empty where the best of them is taken."""
    if asked.mode != "auto":
        return (asked.mode,), asked.reason
    longest = examples[int(lengths_of(examples).argmax())]
    if looks_back_only(model, longest, runtime):
        return ("last",), "the last token alone of a causal model has seen the whole text"
    return MODES, ""


def features_of(
    model: Any,
    head: str,
    base: BaseModel,
    task: Task,
    examples: Sequence[Example],
    modes: Sequence[str],
    size: int,
    runtime: Runtime,
) -> dict[str, torch.Tensor]:
    """Compute the inputs of the head, once for the same examples and base model."""
    # The examples are kept beside, because an identity means something only while its object lives.
    _, known = base.kept.setdefault(("features", id(examples), str(runtime.dtype)), (examples, {}))
    missing = [mode for mode in modes if mode not in known]
    if missing:
        known |= extract(model, head, task, examples, missing, size, runtime)
    return {mode: known[mode] for mode in modes}
