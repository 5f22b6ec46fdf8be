"""Finds parts of a model that run through all of it: biases, norms, embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from finetune.strategies.blocks import find_blocks

if TYPE_CHECKING:
    import torch


def biases(model: torch.nn.Module) -> set[str]:
    """Name the bias terms, those of norms included; T5's table of relative positions is none."""
    return {name for name, _ in model.named_parameters() if name.endswith("bias")}


def norms(model: torch.nn.Module) -> set[str]:
    """Name the gains and biases of normalisations, which are known by their class: LayerNorm, LlamaRMSNorm, ..."""
    return _owned(
        model, lambda _, module: "norm" in type(module).__name__.lower() and not any(True for _ in module.children())
    )


def embeddings(model: torch.nn.Module) -> set[str]:
    """Name the tables of tokens, positions and types: all outside blocks. Those that share one have one name."""
    import torch

    inside = tuple(f"{block}." for block in find_blocks(model))
    return _owned(model, lambda name, module: isinstance(module, torch.nn.Embedding) and not name.startswith(inside))


def _owned(model: torch.nn.Module, wanted: Callable[[str, torch.nn.Module], bool]) -> set[str]:
    """Name, as the model lists them, the parameters that ``wanted`` modules hold directly."""
    owned = {
        id(parameter)
        for name, module in model.named_modules()
        if wanted(name, module)
        for parameter in module.parameters(recurse=False)
    }
    return {name for name, parameter in model.named_parameters() if id(parameter) in owned}
