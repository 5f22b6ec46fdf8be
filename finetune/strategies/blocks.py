"""Finds a model's blocks (its transformer layers), bottom first, for strategies and mitigations that count them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def find_blocks(model: torch.nn.Module) -> list[str]:
    """Module names of the blocks, bottom first; those of an encoder come before those of its decoder.

    Blocks are the elements of lists whose elements are all of one class and hold parameters; of several such
    lists (experts, convolutions) the outermost count. An empty list means the model has none.
    """
    import torch

    names: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{block}.") for block in names)
        if inside or not isinstance(module, torch.nn.ModuleList) or len(module) == 0:
            continue
        kinds = {type(element) for element in module}
        if len(kinds) == 1 and any(True for _ in module[0].parameters()):
            names += [f"{name}.{number}" for number in range(len(module))]
    return names


def last_blocks(model: torch.nn.Module, count: int, path: str) -> list[str]:
    """Module names of the last ``count`` blocks; :class:`InputError` at ``path`` when the model has fewer."""
    from finetune.errors import bad_input

    blocks = find_blocks(model)
    if count > len(blocks):
        raise bad_input(path, f"is {count}, but this model has {len(blocks)} blocks", f"write at most {len(blocks)}")
    return blocks[-count:]


def parameters_above(model: PreTrainedModel, block: str) -> set[str]:
    """Names of the parameters from ``block`` upwards: those registered no earlier than its first one.

    The output embeddings of a language model are left out: tied or not, they mirror the input embeddings at
    the bottom.
    """
    output = model.get_output_embeddings()
    language = {id(parameter) for parameter in output.parameters()} if output is not None else set()
    names = [name for name, _ in model.named_parameters()]
    first = next(position for position, name in enumerate(names) if name.startswith(f"{block}."))
    return {name for name in names[first:] if id(model.get_parameter(name)) not in language}
