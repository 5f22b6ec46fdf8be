"""Finds a model's blocks (its transformer layers), bottom first, for strategies and mitigations that count them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.core.errors import bad_input, did_you_mean

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def find_blocks(model: torch.nn.Module) -> list[str]:
    """Find the module names of the blocks, bottom first; those of an encoder come before those of its decoder.

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
    """Find the module names of the last ``count`` blocks; of an encoder-decoder, the decoder's are the last.

    :class:`InputError` at ``path`` when the model has fewer.
    """
    blocks = find_blocks(model)
    if count > len(blocks):
        raise bad_input(path, f"is {count}, but this model has {len(blocks)} blocks", f"write at most {len(blocks)}")
    return blocks[-count:]


def named_blocks(model: torch.nn.Module, wanted: Sequence[int | str], path: str) -> list[str]:
    """Find the module names of the blocks ``wanted``: numbers count from 0 at the bottom or from -1 at the top, and
    names may leave out their beginning. :class:`InputError` below ``path`` for one that there is not."""
    blocks, chosen = find_blocks(model), []
    for number, word in enumerate(wanted):
        if isinstance(word, str):
            found = [block for block in blocks if f".{block}".endswith(f".{word}")]
            if not found:
                raise bad_input(f"{path}.{number}", f"this model has no block '{word}'", did_you_mean(word, blocks))
            chosen += found
        elif -len(blocks) <= word < len(blocks):
            chosen.append(blocks[word])
        else:
            advice = f"write 0 to {len(blocks) - 1} from the bottom, or -1 to -{len(blocks)} from the top"
            found_out = f"is {word}, but this model has {len(blocks)} blocks"
            raise bad_input(f"{path}.{number}", found_out, advice if blocks else "choose by strategy.patterns instead")
    return chosen


def heights(model: torch.nn.Module) -> dict[str, int]:
    """Compute the height of each parameter, by name, among B blocks: 0 below them all; k in the k-th block from the
    bottom, or between it and the next (an encoder's final norm, below its decoder); B + 1 above them all.

    Outside blocks models register their parts in the order in which they use them. Some make exceptions, told by name:
    what belongs to embeddings or relative positions (BART's `layernorm_embedding`, MPNet's `relative_attention_bias`,
    all of DeBERTa's encoder but its blocks), and a final norm and projection that come before the blocks (OPT).
    """
    blocks = find_blocks(model)
    tops = {block.rpartition(".")[0].rpartition(".")[0]: number for number, block in enumerate(blocks, 1)}
    relative = tuple(
        name.removesuffix("rel_embeddings") for name, _ in model.named_modules() if name.endswith(".rel_embeddings")
    )
    found, passed = {}, 0
    for name, _ in model.named_parameters():
        stack, _, own = name.rpartition(".")[0].rpartition(".")
        inside = next((number for number, block in enumerate(blocks, 1) if name.startswith(f"{block}.")), None)
        if inside is not None:
            found[name] = passed = inside
            continue
        if own.startswith(("final", "project_out")) and stack in tops:
            height = tops[stack]
        elif name.startswith(relative) or ("emb" in name and "after" not in own) or "relative" in name:
            height = 0
        else:
            height = passed
        found[name] = height + 1 if height == len(blocks) else height
    return found


def parameters_above(model: PreTrainedModel, block: str) -> set[str]:
    """Name the parameters from ``block`` upwards, which are those of the blocks and of what uses their outputs.

    The output embeddings of a language model are left out: tied or not, they mirror the input embeddings at
    the bottom.
    """
    output = model.get_output_embeddings()
    language = {id(parameter) for parameter in output.parameters()} if output is not None else set()
    lowest = find_blocks(model).index(block) + 1
    return {
        name
        for name, height in heights(model).items()
        if height >= lowest and id(model.get_parameter(name)) not in language
    }


def shapes(names: list[str]) -> list[str]:
    """Replace block numbers in parameter names by `*`, and give each name once: a list short enough to read."""
    return sorted({".".join("*" if part.isdecimal() else part for part in name.split(".")) for name in names})
