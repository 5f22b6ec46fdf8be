"""Learning rates that differ from parameter to parameter: what each one's is multiplied with."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from finetune.core.errors import bad_input, did_you_mean
from finetune.strategies.blocks import find_blocks, heights, shapes

if TYPE_CHECKING:
    import torch


def by_height(model: torch.nn.Module, decay: float, path: str) -> dict[str, float]:
    """Compute rate factors that fall geometrically with depth: 1 above the last of B blocks, ``decay`` in the last,
    ``decay`` ** B in the first, and ``decay`` ** (B + 1) in the embeddings. :class:`InputError` at ``path`` without
    blocks."""
    top = len(find_blocks(model)) + 1
    if top == 1:
        raise bad_input(path, "no blocks are found in this model, from which to count", "give rates to groups by name")
    return {name: decay ** (top - height) for name, height in heights(model).items()}


def by_pattern(model: torch.nn.Module, groups: Sequence[tuple[str, float]], path: str) -> dict[str, float]:
    """Give the factor of the first of ``groups`` (shell-style pattern, factor) whose pattern matches a parameter's
    name; 1 where none does. :class:`InputError` below ``path`` for a pattern that nothing is left for."""
    names = [name for name, _ in model.named_parameters()]
    factors: dict[str, float] = {}
    for number, (pattern, factor) in enumerate(groups):
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            found = f"'{pattern}' matches no parameter of this model"
            raise bad_input(f"{path}.{number}.pattern", found, did_you_mean(pattern, shapes(names)))
        if factors.keys() >= set(matching):
            found = f"all that '{pattern}' matches is in groups above it"
            raise bad_input(f"{path}.{number}.pattern", found, "put the narrower pattern first")
        factors = {**dict.fromkeys(matching, factor), **factors}
    return {name: factors.get(name, 1.0) for name in names}
