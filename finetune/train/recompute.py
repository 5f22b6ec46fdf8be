"""Gradient checkpointing: a block's activations are computed again in the backward pass instead of being kept.

Chen et al. 2016, "Training deep nets with sublinear memory cost", section 4, with the model's blocks as segments. What
is computed again is the same in every bit: it meets the same dropout masks, the same rows of side by side runs, and
the same kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from finetune.strategies.blocks import find_blocks
from finetune.train.dropout import Masks
from finetune.train.kernels import Kernels

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


class Recompute:
    """Stands around the forward pass of every block of a model, until it is closed. It does something only within
    :meth:`passing`; what a pass stands in besides has to last until its backward pass is over."""

    def __init__(self, model: torch.nn.Module):
        self._masks: Masks | None = None
        self._passing = False
        self._former: dict[torch.nn.Module, Callable[..., Any] | None] = {}
        for name in find_blocks(model):
            block = model.get_submodule(name)
            plain, self._former[block] = block.forward, vars(block).get("forward")
            vars(block)["forward"] = functools.wraps(plain)(functools.partial(self._forward, plain))

    @contextmanager
    def passing(self, masks: Masks | None) -> Iterator[None]:
        """Within the context a pass is under way, with these ``masks`` in our own kernels; None: in torch's."""
        self._masks, self._passing = masks, True
        try:
            yield
        finally:
            self._masks, self._passing = None, False

    def _forward(self, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self._passing or not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        if (cache := kwargs.get("past_key_values")) is not None:
            if cache.get_seq_length():
                raise ValueError("what stands before the tokens is in a cache, which cannot be computed again")
            kwargs |= {"past_key_values": None, "use_cache": False}  # to which each pass would add its own once more
        return checkpoint(plain, *args, use_reentrant=False, context_fn=self._contexts, **kwargs)

    def _contexts(self) -> Contexts:
        """Give what a block's forward pass stands in, the first time and again: its masks are told by how many calls of
        dropout there were before it."""
        masks = self._masks
        return nullcontext(), nullcontext() if masks is None else Kernels(masks.from_here())

    def close(self) -> None:
        """Let the blocks be as they were."""
        for block, former in self._former.items():
            if former is None:
                del vars(block)["forward"]
            else:
                vars(block)["forward"] = former
        self._former = {}
