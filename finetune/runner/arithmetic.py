"""Refuses, by name, what a recipe's `compute:` section asks for and its strategy, mitigations, optimizer or device
cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from finetune import models
from finetune.core.errors import InputError, Problem
from finetune.core.hooks import TrainingHook
from finetune.runner.build import Built, make_strategy
from finetune.strategies.blocks import find_blocks
from finetune.train.rules import RULES

if TYPE_CHECKING:
    from finetune.recipe import Recipe

SHARDING = ("adamw", "lion", "schedule-free")
"""Optimizers whose step of a weight depends on no other weight."""

CHANGING = ("gradients", "stepped", "scored")
"""What hooks do with weights themselves, or their gradients, outside the optimizer."""


def check_arithmetic(recipe: Recipe, built: Built, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse the recipe's arithmetic where ``built``, which may be without weights, or the device cannot have it.
    Raises InputError with every reason."""
    problems = [*_attended(recipe, built, device, dtype), *_recomputed(recipe, built), *_kept(recipe, built, dtype)]
    problems += _offloaded(recipe, built, device)
    if problems := [*problems, *_split(recipe, built), *_multiplied(recipe, device, dtype)]:
        raise InputError(problems)


def _attended(recipe: Recipe, built: Built, device: torch.device, dtype: torch.dtype) -> Iterator[Problem]:
    try:
        models.check_attention(built.model, recipe.compute.attention, device, dtype)
    except InputError as error:
        yield from error.problems


def _recomputed(recipe: Recipe, built: Built) -> Iterator[Problem]:
    if not recipe.compute.gradient_checkpointing or built.strategy.solves:
        return
    at, advice = "compute.gradient_checkpointing", "leave it out for this variant"
    if built.strategy.differentiates:
        found = f"strategy '{recipe.strategy.type}' takes derivatives inside the pass that would be computed again"
        yield Problem(f"is true, and {found}", advice, at)
    elif any(getattr(part, "cached", None) is True for part in built.model.modules()):  # virtual tokens
        found = "puts what it has learnt before the tokens, in a cache, which cannot be computed again"
        yield Problem(f"is true, and strategy '{recipe.strategy.type}' {found}", advice, at)
    elif not find_blocks(built.model):
        yield Problem("is true, and this model has no blocks that could be computed again", advice, at)
    elif recipe.train.compile is True:
        yield Problem(
            "is true, and blocks are to be compiled, which fixes what is kept", "leave out one of the two", at
        )


def _kept(recipe: Recipe, built: Built, dtype: torch.dtype) -> Iterator[Problem]:
    """Weights, and what the optimizer remembers, in fewer bits."""
    compute, optimizer = recipe.compute, recipe.train.optimizer
    if not compute.compact or built.strategy.solves:
        return
    at = "compute.weights" if compute.weights != "float32" else "compute.states"
    said = f"is {compute.weights if compute.weights != 'float32' else compute.states}, and"
    if optimizer not in RULES:
        yield Problem(f"{said} {optimizer} keeps all in float32", f"train with {', '.join(RULES)}", at)
    if compute.weights == "float32":
        return
    if dtype != torch.bfloat16:
        found = f"the arithmetic is {str(dtype).removeprefix('torch.')}"
        yield Problem(f"{said} {found}", "write model.dtype: bfloat16", at)
    for hook in built.hooks:
        if hook.differentiates or any(
            getattr(type(hook), verb) is not getattr(TrainingHook, verb) for verb in CHANGING
        ):
            found = f"'{hook.name}' computes with weights itself, which needs float32"
            yield Problem(f"{said} {found}", "write float32, or leave one of the two out", at)


def _offloaded(recipe: Recipe, built: Built, device: torch.device) -> Iterator[Problem]:
    """What the optimizer remembers, in the host's memory."""
    at, optimizer = "compute.offload", recipe.train.optimizer
    if not recipe.compute.offload or built.strategy.solves:
        return
    if device.type != "cuda":
        yield Problem(f"is true, and on {device.type} all is in the host's memory", "leave it out", at)
    if optimizer not in RULES:
        found = f"{optimizer} keeps what it remembers beside the weights"
        yield Problem(f"is true, and {found}", f"train with {', '.join(RULES)}", at)
    if recipe.compute.shard:
        yield Problem(
            "is true, and each process has its own rows in its device's memory", "leave out one of the two", at
        )


def _split(recipe: Recipe, built: Built) -> Iterator[Problem]:
    """Weights of which each process has some rows."""
    if not recipe.compute.shard:
        return
    at, optimizer, kind = "compute.shard", recipe.train.optimizer, recipe.strategy.type
    first = built.strategy.before()
    if built.strategy.solves or (first is not None and make_strategy(first[0]).solves):
        found = "a probe is solved from what the whole model gives"
        yield Problem(f"is true, and {found}", "write strategy.solver: steps, or leave it out", at)
        return
    if built.strategy.quantizes:
        found = f"strategy '{kind}' packs weights into few bits, which cannot be cut into rows"
        yield Problem(f"is true, and {found}", "leave one of the two out", at)
    for hook in built.hooks:
        if not hook.can_shard:
            found = f"'{hook.name}' computes with whole weights"
            yield Problem(f"is true, and {found}", "leave one of the two out", at)
    if optimizer not in SHARDING:
        found = f"{optimizer} computes a step from whole matrices or from all weights together"
        yield Problem(f"is true, and {found}", f"train with {', '.join(SHARDING)}", at)
    if recipe.compute.compact:
        found = "rounding weights or states to fewer bits is not done to rows"
        yield Problem(f"is true, and {found}", "leave out compute.weights and compute.states", at)
    if recipe.train.compile is True:
        yield Problem("is true, and blocks are to be compiled", "leave one of the two out", at)
    if single := [name for name, value in built.model.named_parameters() if value.ndim == 0]:
        yield Problem(f"is true, and {single[0]} is one number, of which there are no rows", "leave it out", at)


def _multiplied(recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Iterator[Problem]:
    if recipe.compute.tf32 and device.type != "cuda":
        yield Problem(f"is true, and there is no TF32 on {device.type}", "leave it out", "compute.tf32")
    if dtype == torch.float16 and recipe.train.optimizer in ("schedule-free", "prodigy"):
        found = (
            f"is float16, whose steps are left out when they overflow, and {recipe.train.optimizer} counts all steps"
        )
        yield Problem(found, "write bfloat16 or float32, or train with another optimizer", "model.dtype")
