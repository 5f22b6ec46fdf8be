"""Refuses, by name, what a recipe's `compute:` section asks for and its model, strategy, mitigations, optimizer or
device cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from finetune import models
from finetune.core.errors import InputError, Problem
from finetune.core.hooks import TrainingHook
from finetune.runner.build import Built, make_strategy
from finetune.strategies.blocks import find_blocks, heights
from finetune.train.load_balance import find_routers
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
    problems += [*_offloaded(recipe, built, device), *_split(recipe, built), *_multiplied(recipe, device, dtype)]
    if problems := [*problems, *_balanced(recipe, built)]:
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


def _balanced(recipe: Recipe, built: Built) -> Iterator[Problem]:
    """The auxiliary loss of a mixture of experts."""
    coefficient, kind = recipe.compute.moe_auxiliary_loss, recipe.strategy.type
    if not coefficient:
        return
    at, said, advice = "compute.moe_auxiliary_loss", f"is {coefficient:g}, and", "leave it out for this variant"
    routers = find_routers(built.model)
    if not routers:
        found = "this model has no routers whose load-balancing loss transformers defines"
        yield Problem(f"{said} {found}", advice, at)
    elif built.strategy.solves:
        yield Problem(f"{said} a probe is solved, and takes no steps", advice, at)
    elif built.strategy.pairs:
        yield Problem(f"{said} strategy '{kind}' has a loss of pairs of answers, not of each", advice, at)
    elif built.strategy.differentiates:
        found = f"strategy '{kind}' takes derivatives inside the pass, in which routers cannot be watched"
        yield Problem(f"{said} {found}", advice, at)
    elif not _reaches(built.model, set(routers)):
        yield Problem(f"{said} all that learns is above the routers, which it cannot change", advice, at)
    elif recipe.train.compile is True:
        found = "blocks are to be compiled, in which routers cannot be watched"
        yield Problem(f"{said} {found}", "leave out one of the two", at)


def left_out(recipe: Recipe, config: Any) -> list[str]:
    """Say what a model's configuration asks for in training and the recipe does not, in lines for a person."""
    own = config.get_text_config()
    asked = getattr(own, "output_router_logits", False) and getattr(own, "router_aux_loss_coef", 0)
    if not asked or recipe.compute.moe_auxiliary_loss:
        return []
    found = f"its configuration asks for an auxiliary loss of its routers, times {asked:g}"
    return [f"{found}; it is left out, as compute.moe_auxiliary_loss is 0"]


def _reaches(model: torch.nn.Module, routers: set[torch.nn.Module]) -> bool:
    """Tell whether anything learns in the block of the topmost of ``routers``, or below it."""
    height, parameters = heights(model), dict(model.named_parameters())
    own = {id(value) for router in routers for value in router.parameters()}
    top = max(height[name] for name, value in parameters.items() if id(value) in own)
    return any(height[name] <= top for name, value in parameters.items() if value.requires_grad)
