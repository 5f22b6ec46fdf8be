"""Several processes that train one model: how its gradient is shared among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import DistributedDataParallelKwargs

from finetune.core.examples import Example, lengths_of
from finetune.core.runtime import Runtime
from finetune.core.sharding import is_sharded
from finetune.replicas.group import ReplicaGroup
from finetune.strategies.base import trained_parameters
from finetune.tasks.base import Task


def share(
    group: ReplicaGroup, task: Task, examples: Sequence[Example], optimizer: Any, runtime: Runtime
) -> tuple[torch.nn.Module, Any]:
    """Give the group's model, wrapped where processes share its gradient, and the optimizer. The group keeps the model
    itself: scoring runs it as often as each process has batches, not in step.

    DistributedDataParallel waits for the gradient of every parameter. Where some parameters may take no part in a pass
    it has to look for those each time (Li et al. 2020, "PyTorch Distributed", section 3.2.3), which is not done where
    it need not be.
    """
    accelerator = runtime.accelerator
    if is_sharded(group.model):
        model: Any = group.model
        model.set_reduce_scatter_unused_params(skips(model))
        return model, accelerator.prepare(optimizer)
    if accelerator.num_processes > 1:
        some = runtime.all_reduce_sum(skips(group.model) or idle(group, task, examples, runtime)) > 0
        accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=some)
    return accelerator.prepare(group.model, optimizer)


def skips(model: torch.nn.Module) -> bool:
    """Tell whether a pass may leave parts of ``model`` out by chance or by what it reads: whole layers (LayerDrop: Fan
    et al. 2020), or experts that are modules of their own, to which no token may be sent."""
    for name, module in model.named_modules():
        dropped = getattr(module, "layerdrop", 0)
        if isinstance(dropped, int | float) and dropped > 0:
            return True
        if name.endswith("experts") and len(list(module.children())) > 1:
            return True
    return False


def idle(group: ReplicaGroup, task: Task, examples: Sequence[Example], runtime: Runtime) -> bool:
    """Tell whether a trained parameter gets no gradient from the shortest example. Draws no random number."""
    every = [examples[int(lengths_of(examples).argmin())]] * group.count
    training = [module for module in group.model.modules() if module.training]
    group.model.eval()
    batch = task.batch_for(group.model, every, runtime.device, [1] * group.count)
    with runtime.autocast(), group.on(every, batch, [1] * group.count):
        task.losses(group.model, batch).sum().backward()
    found = any(parameter.grad is None for parameter in trained_parameters(group.model).values())
    group.model.zero_grad(set_to_none=True)
    for module in training:
        module.training = True
    return found
