"""Runs a model in float32 whose weights are stored in fewer bits, with no more than one module's weights in float32 at
a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def in_float32(model: torch.nn.Module) -> bool:
    """Have every module of ``model`` bring its own weights to float32 when it is called, and back when it returns. Tell
    whether any has weights of another type."""
    import torch

    found = False
    for module in model.modules():
        own = [value for value in module.parameters(recurse=False) if value.is_floating_point()]
        if narrow := [value for value in own if value.dtype != torch.float32]:
            found = True
            _surround(module, narrow)
    return found


def _surround(module: torch.nn.Module, own: list[torch.nn.Parameter]) -> None:
    kept: list[torch.Tensor] = []

    def begin(*_: Any) -> None:
        kept.extend(value.data for value in own)
        for value in own:
            value.data = value.data.float()

    def end(*_: Any) -> None:
        for value, data in zip(own, kept, strict=True):
            value.data = data
        kept.clear()

    module.register_forward_pre_hook(begin)
    module.register_forward_hook(end, always_call=True)
