"""A model of a base's configuration with few blocks and random weights: tells how the base computes, before its
weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.models.heads import Architecture
from finetune.models.loading import skeleton_of
from finetune.models.places import ModelOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCKS = 2
MOST_BLOCKS = 8
"""Where blocks are of several kinds, in turn, so many may be needed to have one of each."""
MOST_PARAMETERS = 150_000_000
"""Drawing more takes longer than a check may."""
LAYERS = ("num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers", "num_decoder_layers")


def draw_small(options: ModelOptions, architecture: Architecture, config: Any) -> PreTrainedModel | None:
    """Two blocks of ``config`` (more where it has several kinds of blocks, all where it does not let itself be
    changed), drawn as transformers draws them, in float32 on the CPU. None where even that has too many parameters."""
    import torch

    small = shrunk(config)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        empty = skeleton_of(options, architecture, small)
    if sum(parameter.numel() for parameter in empty.parameters()) > MOST_PARAMETERS:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return skeleton_of(options, architecture, small, dtype=torch.float32)


def shrunk(config: Any) -> Any:
    """``config`` with few blocks, and what it says of each block cut to those; itself where it refuses."""
    import copy

    small = copy.deepcopy(config)
    before = {name: count for name in LAYERS if isinstance(count := getattr(small, name, None), int)}
    kinds = [tuple(value) for value in vars(small).values() if _of_each(value, before.values())]
    enough = [next(n for n in range(1, len(each) + 1) if set(each[:n]) == set(each)) for each in kinds]
    count = min(max([BLOCKS, *enough]), MOST_BLOCKS)
    try:
        for name, own in before.items():
            setattr(small, name, min(own, count))
        for name, value in list(vars(small).items()):
            if _of_each(value, before.values()):
                setattr(small, name, type(value)(value[:count]))
    except (NotImplementedError, AttributeError, ValueError):
        return config  # such as Funnel's, whose number of blocks is a sum
    return small


def _of_each(value: Any, counts: Any) -> bool:
    """Tell whether a setting has one value for every block."""
    return isinstance(value, list | tuple) and len(value) > BLOCKS and len(value) in counts and all(map(_plain, value))


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)
