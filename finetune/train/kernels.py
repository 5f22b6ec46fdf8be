"""Replacements for two of torch's functions during training: dropout with addressed masks, and attention that is fast
where torch's is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from finetune.train.dropout import Dropout, Masks, masked, scale

LONGEST = 512
"""Positions up to which all attention weights are kept for the backward pass, which is faster on a CPU; beyond it
they take too much memory, and torch's kernel computes them twice."""


class Kernels(TorchFunctionMode):
    """Within the context every model's calls of dropout and attention come here, however the model is written."""

    def __init__(self, masks: Masks):
        super().__init__()
        self.masks = masks

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.dropout:
            return self._dropout(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(
        self, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        if not training or p == 0:
            return input
        return Dropout.apply(input, self.masks.keep(input.shape, p), scale(p))

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        dtype = torch.get_autocast_dtype(query.device.type) if torch.is_autocast_enabled(query.device.type) else None
        query, key, value = (x if dtype is None else x.to(dtype) for x in (query, key, value))
        learnt = attn_mask if attn_mask is not None and attn_mask.requires_grad else None  # a bias, as T5 has
        short = query.shape[-2] * key.shape[-2] <= LONGEST**2
        quick = query.device.type == "cpu" and query.dtype == torch.bfloat16 and short and query.requires_grad
        if not dropout_p and (learnt is not None or not quick):
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = (x.repeat_interleave(groups, -3) for x in (key, value))
        if is_causal:
            attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        if learnt is not None:
            weights = (query @ key.transpose(-1, -2)) * scale + learnt
            return self._dropout(weights.float().softmax(-1).to(value.dtype), dropout_p) @ value
        keep = None
        if dropout_p:
            keep = self.masks.keep(torch.Size((*query.shape[:-1], key.shape[-2])), dropout_p)
        return Attention.apply(query, key, value, attn_mask, keep, dropout_p, scale)


class Attention(torch.autograd.Function):
    """softmax(scale * query key^T + mask) value, with dropout on the weights (Vaswani et al. 2017, section 3.2.1).

    The weights are kept in the inputs' own precision; sums are in float32. Shapes (N, heads, T, size); a mask is
    boolean (True: may be seen) or is added. A row that may see nothing sees everything alike, and is padding.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        keep: torch.Tensor | None,
        p: float,
        factor: float,
    ) -> torch.Tensor:
        scores = torch.matmul(query * factor, key.transpose(-1, -2)).float()
        if mask is not None and mask.dtype == torch.bool:
            scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores += mask
        weights = scores.softmax(-1).to(value.dtype)
        ctx.save_for_backward(query, key, value, weights, keep)
        ctx.p, ctx.factor = p, factor
        if keep is None:
            return torch.matmul(weights, value)
        return torch.matmul(masked(weights, keep), value).mul_(scale(p))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        query, key, value, weights, keep = ctx.saved_tensors
        gradient, kept = gradients[0], weights
        if keep is not None:
            gradient, kept = gradient * scale(ctx.p), masked(weights, keep)
        to_value = torch.matmul(kept.transpose(-1, -2), gradient)
        to_weights = torch.matmul(gradient, value.transpose(-1, -2))
        if keep is not None:
            to_weights = masked(to_weights, keep)
        # The derivative of a softmax needs its output and what comes back to it, both in float32.
        to_scores = torch._softmax_backward_data(to_weights.float(), weights.float(), -1, torch.float32)
        to_scores = to_scores.to(query.dtype)
        to_query = torch.matmul(to_scores, key).mul_(ctx.factor)
        to_key = torch.matmul(to_scores.transpose(-1, -2), query).mul_(ctx.factor)
        return to_query, to_key, to_value, None, None, None, None
