"""The negative log-likelihood of tokens, computed in chunks so that the logits of all of them never exist together.

Shapes: L labels; D features of a hidden state; V tokens in the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, log_softmax

CHUNK_BYTES = 30 * 2**20
"""Of a chunk's logits in float32. Blocks of 32 MiB and more glibc's allocator asks of the system anew every time."""


def label_losses(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> torch.Tensor:
    """Compute -log softmax(hidden @ weight.T + bias)[target] of each label: (L,), float32, nats.

    ``hidden`` (L, D), ``weight`` (V, D), ``bias`` (V,) or None, ``targets`` (L,). Products are taken in autocast's
    dtype, or else in the weight's; the softmax in float32. There are no second derivatives.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return _LabelLosses.apply(hidden, weight, bias, targets, dtype, torch.is_grad_enabled())


class _LabelLosses(torch.autograd.Function):
    """Where the output layer is frozen, the slope of the losses is found while the softmax is at hand, so that the
    backward pass has no product over the vocabulary. Where it learns, the backward pass computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        dtype: torch.dtype,
        differentiable: bool,
    ) -> torch.Tensor:
        ctx.dtype, ctx.hidden_dtype = dtype, hidden.dtype
        ctx.frozen = not any(ctx.needs_input_grad[1:3])
        sloped = differentiable and ctx.frozen and ctx.needs_input_grad[0]
        with torch.autocast(hidden.device.type, enabled=False):
            losses, normaliser, slope = _by_labels(*_cast(dtype, hidden, weight, bias), targets, sloped)
        if ctx.frozen:
            ctx.save_for_backward(slope)
        else:
            ctx.save_for_backward(hidden, weight, bias, targets, normaliser)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.frozen:
            (slope,) = ctx.saved_tensors
            return (slope * upstream[:, None]).to(ctx.hidden_dtype), None, None, None, None, None
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        with torch.autocast(hidden.device.type, enabled=False):
            values = _cast(ctx.dtype, hidden, weight, bias)
            slopes = _by_vocabulary(*values, targets, normaliser, upstream, ctx.needs_input_grad)
        originals = (hidden, weight, bias)
        given = [None if s is None else s.to(own.dtype) for s, own in zip(slopes, originals, strict=True)]
        return *given, None, None, None


def _cast(
    dtype: torch.dtype, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _steps(total: int, width: int) -> int:
    """Choose into how many chunks to cut ``total`` rows whose logits are ``width`` long."""
    return max(1, math.ceil(total * width * 4 / CHUNK_BYTES))


def _by_labels(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, sloped: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Compute losses (L,), logarithms of the softmax's denominators (L,) and, when ``sloped``, d loss / d hidden
    (L, D).

    Some labels at a time, all of the vocabulary.
    """
    losses = hidden.new_empty(len(hidden), dtype=torch.float32)
    normaliser = torch.empty_like(losses)
    slope = torch.empty_like(hidden) if sloped else None
    step = math.ceil(len(hidden) / _steps(len(hidden), len(weight)))
    for start in range(0, len(hidden), max(step, 1)):
        rows = slice(start, start + step)
        target = targets[rows, None]
        logits = linear(hidden[rows], weight, bias)
        likelihoods = log_softmax(logits, -1, dtype=torch.float32)
        chosen = likelihoods.gather(1, target)
        losses[rows] = -chosen[:, 0]
        normaliser[rows] = (logits.gather(1, target) - chosen)[:, 0]
        if slope is not None:
            probabilities = likelihoods.exp_()
            probabilities.scatter_(1, target, chosen.exp() - 1)
            slope[rows] = probabilities.to(weight.dtype) @ weight
    return losses, normaliser, slope


def _by_vocabulary(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    normaliser: torch.Tensor,
    upstream: torch.Tensor,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Compute the slopes of hidden states (L, D), weight (V, D) and bias (V,), each None unless ``wanted``.

    All labels, some of the vocabulary at a time: each part of the weight's large slope is then written once, and what
    adds up over the parts, the slope of the hidden states, is small.
    """
    by_hidden = torch.zeros_like(hidden, dtype=torch.float32) if wanted[0] else None
    by_weight = torch.zeros_like(weight) if wanted[1] else None
    by_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
    step = math.ceil(len(weight) / _steps(len(weight), len(hidden)))
    for start in range(0, len(weight), step):
        part = slice(start, start + step)
        logits = linear(hidden, weight[part], None if bias is None else bias[part]).float()
        slope = logits.sub_(normaliser[:, None]).exp_()
        inside = ((targets >= start) & (targets < start + step)).nonzero()[:, 0]
        slope[inside, targets[inside] - start] -= 1
        slope = slope.mul_(upstream[:, None]).to(weight.dtype)
        if by_hidden is not None:
            by_hidden += slope @ weight[part]
        if by_weight is not None:
            by_weight[part] = slope.t() @ hidden
        if by_bias is not None:
            by_bias[part] = slope.sum(0)
    return by_hidden, by_weight, by_bias
