"""Sharding: of every parameter, its gradient and what the optimizer remembers of it, a process holds some of the rows.

Rajbhandari et al. 2020, "ZeRO: Memory optimizations toward training trillion parameter models", stage 3, as torch's
`fully_shard` does it (FSDP2): a block's weights are whole only while the block is at work. What learns is a
:class:`Shard` to optimizer, hooks and checkpoints: a plain parameter of this process's rows, in the memory that FSDP
gathers from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


class Shard(torch.nn.Parameter):
    """This process's rows of a parameter that learns."""

    whole: Any
    """The parameter as the model has it: a `DTensor`."""
    root: Any
    """The sharded model."""

    @staticmethod
    def of(whole: Any, root: Any) -> Shard:
        """Give the shard of a sharded parameter: the same one each time."""
        if not hasattr(whole, "own_shard"):
            with torch.no_grad():
                whole.own_shard = Shard(whole.to_local())
            whole.own_shard.whole, whole.own_shard.root = whole, root
        found: Shard = whole.own_shard
        return found


def rows_of(count: int, process: int, processes: int) -> tuple[int, int]:
    """Find which of ``count`` rows are a process's: the first, and the one after the last, as torch cuts them."""
    size = -(-count // processes)
    return min(process * size, count), min((process + 1) * size, count)


def shard(
    model: torch.nn.Module, blocks: Sequence[str], processes: int, device: torch.device, dtype: torch.dtype
) -> torch.nn.Module:
    """Shard ``model`` over all ``processes``, in place, its ``blocks`` one by one; parameters go to the ``device``.

    Where ``dtype``, that of the forward pass, has 16 bits, autocast would compute with copies of float32 weights, which
    autograd would keep whole until the backward pass: blocks' matrices are gathered in those bits. All else keeps its
    type.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh, narrow = init_device_mesh(device.type, (processes,)), dtype != torch.float32
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False) if narrow else MixedPrecisionPolicy()
    for name in blocks:
        block = model.get_submodule(name)
        others = [module for module in block.modules() if narrow and _own(module) and not _multiplies(module)]
        if others:
            fully_shard(others, mesh=mesh)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # The output layer's weights are asked for when the model's forward pass is over.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    for other in ("generate", "features"):  # which are called by themselves
        if hasattr(model, other):
            register_fsdp_forward_method(model, other)
    return model.to(device)  # what is no parameter


def _own(module: torch.nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _multiplies(module: torch.nn.Module) -> bool:
    """Tell whether autocast brings what a module has learnt to its own type: matrices, but for those that are looked up
    and not multiplied with."""
    own = [value.ndim for value in module.parameters(recurse=False)]
    return max(own) > 1 and not isinstance(module, torch.nn.Embedding)


def is_sharded(model: torch.nn.Module) -> bool:
    """Tell whether :func:`shard` has been at ``model``."""
    return hasattr(model, "set_reshard_after_forward")


def shards_of(model: torch.nn.Module, parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    """Give the shards of the ``parameters`` of ``model``, or these where it is whole."""
    if not is_sharded(model):
        return dict(parameters)
    return {name: Shard.of(value, model) for name, value in parameters.items()}


def collect_gradients(model: torch.nn.Module) -> None:
    """Hand the gradients that a backward pass has left in a sharded ``model`` to the shards."""
    for value in model.parameters() if is_sharded(model) else ():
        if value.grad is not None and hasattr(value, "own_shard"):
            whole: Any = value.grad
            value.own_shard.grad, value.grad = whole.to_local(), None


def reshard(model: torch.nn.Module) -> None:
    """Let the next pass gather what lies outside of blocks anew: it stays gathered after a pass without a backward
    pass, and weights may have changed since."""
    if is_sharded(model):
        model.reshard()  # type: ignore[operator]


def stand_in(
    parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Put ``values``, by name, in the place of those of ``parameters``; give these."""
    former = {name: parameters[name].data for name in values}
    for name, value in values.items():
        parameter = parameters[name]
        if isinstance(parameter, Shard):  # whose memory FSDP knows
            former[name] = parameter.detach().clone()
            parameter.data.copy_(value)
        else:
            parameter.data = value
    renew(parameters.values())
    return former


def renew(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Note that ``parameters`` have other values."""
    first = next(iter(parameters), None)
    if isinstance(first, Shard):
        reshard(first.root)


def norm_over_processes(
    norms: torch.Tensor, model: torch.nn.Module, added: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Compute norms of all rows from those of this process's rows, where ``model`` is sharded; ``added`` sums over the
    processes."""
    if not is_sharded(model):
        return norms
    squares = added(norms.double() ** 2)
    return squares.sqrt().to(norms)


def gathered(parameters: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Give parameters one by one, each whole. Every process has to go through all of them."""
    for name, value in parameters.items():
        yield name, value.full_tensor() if hasattr(value, "full_tensor") else value.detach()


@contextmanager
def whole(model: torch.nn.Module, names: Iterable[str], keeps: bool) -> Iterator[None]:
    """Within the context, the parameters called ``names`` of a sharded ``model`` are whole and on the CPU in those
    processes that ``keeps`` says; it cannot be run. All processes have to ask."""
    if not is_sharded(model):
        yield
        return
    reshard(model)
    wanted, held = {id(model.get_parameter(name)) for name in names}, dict[int, torch.nn.Parameter]()
    every = ((module, key, value) for module in model.modules() for key, value in module._parameters.items())
    places = [(module, key, value) for module, key, value in every if value is not None and id(value) in wanted]
    try:
        for module, key, value in places:
            if id(value) not in held:  # tied weights are gathered once
                found = value.full_tensor().detach().cpu()  # type: ignore[attr-defined]
                held[id(value)] = torch.nn.Parameter(found, value.requires_grad) if keeps else value
            module._parameters[key] = held[id(value)]
        yield
    finally:
        for module, key, value in places:
            module._parameters[key] = value


@dataclass(frozen=True)
class Parts:
    """How tensors of a checkpoint are split over the processes that write or read it, by rows."""

    process: int
    processes: int
    shape_of: Callable[[str], tuple[int, ...] | None]
    """Gives, by a tensor's path in the checkpoint, the shape of the parameter that it is of; None: it is not split."""
    wait: Callable[[], None]
    """Returns when all processes have asked."""

    def rows(self, count: int) -> tuple[int, int]:
        """Find which of ``count`` rows are this process's."""
        return rows_of(count, self.process, self.processes)
