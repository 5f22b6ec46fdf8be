"""From a recipe's options to the model that is trained: mitigations, strategy, device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune import models
from finetune.core.errors import bad_input
from finetune.core.hooks import TrainingHook, TrainingHooks
from finetune.core.memory import return_memory
from finetune.core.registry import MITIGATIONS, STRATEGIES
from finetune.core.runtime import Runtime
from finetune.core.sharding import shard
from finetune.mitigations.base import Mitigation
from finetune.models.pooled import pooled_in, read_pooling
from finetune.replicas.group import ReplicaGroup
from finetune.strategies.base import Strategy, trained_parameters
from finetune.strategies.blocks import find_blocks
from finetune.tasks.base import Task
from finetune.train.optimizer import check_optimizer


@dataclass(frozen=True)
class Built:
    """A run's model as training starts from it."""

    model: torch.nn.Module
    strategy: Strategy
    hooks: TrainingHooks
    """The strategy and the mitigations."""
    fresh: frozenset[str]
    """Names of trained parameters without a pretrained value."""

    def restore(self, folder: Path) -> None:
        """Put in what a run has saved in ``folder``: the weights that it trained, and how it pools."""
        self.strategy.restore(self.model, folder)
        pooled, pooling = pooled_in(self.model), read_pooling(folder)
        if pooled and pooling:
            pooled.pooling = pooling


def to_device(
    model: torch.nn.Module, runtime: Runtime, weights: str = "float32", base: models.BaseModel | None = None
) -> torch.nn.Module:
    """Move the model to its device, frozen weights in the compute dtype, matrices that learn in that of ``weights``.
    Frozen ones that are views of the ``base``'s are there once, for all runs that have them.

    Weights that learn need float32's small steps, or an optimizer that can do without them; frozen ones are only
    multiplied with, but for normalisations', which have to be of one type, and may meet what a part that learns has
    made in float32. Buffers stay as they are: rotary frequencies lose far positions in bfloat16. Where models are
    sharded it stays on the CPU: see :func:`sharded`.
    """
    device = torch.device("cpu") if runtime.shards else runtime.device
    learnt = getattr(torch, weights)
    for module in model.modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter.is_floating_point()]
        mixed = isinstance(module, torch.nn.LayerNorm) or any(parameter.requires_grad for parameter in own)
        for parameter in own:  # and none that is packed into a few bits
            precise = (parameter.requires_grad or mixed) and parameter.ndim < 2
            dtype = torch.float32 if precise else learnt if parameter.requires_grad else runtime.dtype
            if base is None or parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
            else:
                parameter.data = base.moved(parameter, dtype, device)
    return model.to(device)


def sharded(model: torch.nn.Module, runtime: Runtime) -> torch.nn.Module:
    """Split a model that :func:`to_device` has prepared over the processes, where the runtime says so."""
    if not runtime.shards:
        return model
    return_memory()
    return shard(model, find_blocks(model), runtime.accelerator.num_processes, runtime.device, runtime.dtype)


def group_of(model: torch.nn.Module, runtime: Runtime, base: models.BaseModel | None = None) -> ReplicaGroup:
    """Make of one ``model`` what can be scored: on its device, or split over the processes. ``base``: see
    :func:`to_device`."""
    return ReplicaGroup(sharded(to_device(model, runtime, base=base), runtime))


def make_strategy(options: Any, changed: frozenset[str] = frozenset()) -> Strategy:
    """Make the strategy that ``options`` describe; ``changed`` names parameters that mitigations have changed."""
    return STRATEGIES.get(options.type)(options, changed)


def make_mitigations(options: Sequence[Any]) -> list[Mitigation]:
    """Make the mitigations that ``options`` describe, in their order."""
    return [MITIGATIONS.get(each.type)(each) for each in options]


def treated(mitigations: Sequence[Any]) -> bool:
    """Tell whether one of the ``mitigations``' options changes training, and does not only combine finished runs."""
    return any(mitigation.combines is None for mitigation in make_mitigations(mitigations))


def prepare(
    model: Any,
    task: Task,
    strategy_options: Any,
    mitigation_options: Sequence[Any],
    optimizer: str,
    new: frozenset[str] = frozenset(),
) -> Built:
    """Apply mitigations and strategy to a fresh model; ``new`` names its parameters without a pretrained value, and the
    ``optimizer`` has to be one that can train under them. Works on weightless models too."""
    task.check_model(model)
    if task.pooling:
        model.pooling = task.pooling
    strategy, mitigations = make_strategy(strategy_options), make_mitigations(mitigation_options)
    check_together(strategy, mitigations)
    head = models.head_parameters(model, new) if task.new_head else set(new)
    pretrained = {id(value) for name, value in model.named_parameters() if name not in head}
    changed: dict[str, torch.nn.Parameter] = {}
    for number, mitigation in enumerate(mitigations):
        names = mitigation.prepare(model, head, f"mitigations.{number}")
        own = {name: model.get_parameter(name) for name in names}
        changed |= own
        pretrained -= {id(value) for value in own.values()} if mitigation.redraws else set()
    strategy = make_strategy(strategy_options, frozenset(changed))
    prepared = strategy.prepare(model, head)
    for parameter in [value for name, value in prepared.named_parameters() if task.idle(name)]:
        parameter.requires_grad_(False)
    if frozen := [name for name, parameter in changed.items() if not parameter.requires_grad]:
        found = f"changes weights that strategy '{strategy_options.type}' leaves frozen, such as {frozen[0]}"
        raise bad_input("mitigations", found, "use strategy full, or a partial one that trains them")
    fresh = frozenset(name for name, value in trained_parameters(prepared).items() if id(value) not in pretrained)
    for number, mitigation in enumerate(mitigations):
        mitigation.check(prepared, fresh, f"mitigations.{number}")
    places: list[tuple[str, TrainingHook]] = [("strategy", each) for each in strategy.hooks]
    places += [(f"mitigations.{number}", each) for number, each in enumerate(mitigations)]
    check_optimizer(optimizer, places, trained_parameters(prepared))
    return Built(prepared, strategy, TrainingHooks([each for _, each in places]), fresh)


def check_together(strategy: Strategy, mitigations: Sequence[Mitigation]) -> None:
    """Refuse mitigations that contradict each other or the strategy, and the same one twice."""
    for number, mitigation in enumerate(mitigations):
        if strategy.solves and mitigation.combines is None:
            found = f"'{mitigation.name}' is about training in steps, and a probe is solved"
            raise bad_input(f"mitigations.{number}", found, "leave it out, or write strategy.solver: steps")
        for other in (*strategy.hooks, *mitigations[:number]):
            reason = mitigation.contradicts.get(other.name)
            if isinstance(other, Strategy | Mitigation):
                reason = reason or other.contradicts.get(mitigation.name)
            if isinstance(other, Mitigation):
                reason = reason or ("it is there already" if other.name == mitigation.name else None)
            if reason:
                found = f"'{mitigation.name}' cannot stand beside '{other.name}': {reason}"
                raise bad_input(f"mitigations.{number}", found, "leave one of the two out")


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Count all parameters, and those that learn."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"total": total, "trainable": sum(value.numel() for value in trained_parameters(model).values())}
