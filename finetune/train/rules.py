"""Rules by which optimizers turn a gradient into a step, for R runs side by side.

Weights, gradients and what is remembered of them are float32 and (R, ...): whatever a rule takes the mean or the norm
of, it takes of each run's own. A rule changes nothing; it gives new weights and new memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

import torch

Memory = dict[str, torch.Tensor]
"""What is remembered of a parameter, by name."""

Settings = Mapping[str, Any]
"""Of a parameter's group: `lr`, `betas`, `eps`, `weight_decay`."""

Rule = Callable[[torch.Tensor, torch.Tensor, Memory, int, Settings], tuple[torch.Tensor, Memory]]
"""New weights and memory from weights (R, ...), their gradient, the memory (empty at first), the number of the step,
from 1, and the group's settings."""

ADAFACTOR_POWER, ADAFACTOR_FLOOR, ADAFACTOR_RMS = 0.8, 1e-30, 1.0
"""Shazeer & Stern 2018, "Adafactor", section 8: how the decay rate rises, what is added to squared gradients, and the
most that a step's root mean square may be."""

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of a quintic that brings singular values near 1 (Jordan et al. 2024, "Muon")."""

ITERATIONS, OF_ADAM = 5, 0.2
"""How often it is applied; and the root mean square of AdamW's steps, which Muon's are scaled to, so that it takes the
same rates and decay (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2)."""


def adamw(
    weights: torch.Tensor, gradient: torch.Tensor, memory: Memory, step: int, group: Settings
) -> tuple[torch.Tensor, Memory]:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""
    mean, square = memory.get("exp_avg"), memory.get("exp_avg_sq")
    mean = torch.zeros_like(weights) if mean is None else mean
    square = torch.zeros_like(weights) if square is None else square
    first, second = group["betas"]
    mean = mean.lerp(gradient, 1 - first)
    square = square.mul(second).addcmul(gradient, gradient, value=1 - second)
    below = square.sqrt().div(sqrt(1 - second**step)).add(group["eps"])
    rate = group["lr"]
    weights = weights.mul(1 - rate * group["weight_decay"]).addcdiv(mean, below, value=-rate / (1 - first**step))
    return weights, {"exp_avg": mean, "exp_avg_sq": square}


def lion(
    weights: torch.Tensor, gradient: torch.Tensor, memory: Memory, step: int, group: Settings
) -> tuple[torch.Tensor, Memory]:
    """The sign of a mean of gradients (Chen et al. 2023, "Symbolic discovery of optimization algorithms",
    algorithm 2)."""
    mean = memory.get("exp_avg")
    mean = torch.zeros_like(weights) if mean is None else mean
    first, second = group["betas"]
    direction = mean.lerp(gradient, 1 - first).sign()
    weights = weights.mul(1 - group["lr"] * group["weight_decay"]).add(direction, alpha=-group["lr"])
    return weights, {"exp_avg": mean.lerp(gradient, 1 - second)}


def adafactor(
    weights: torch.Tensor, gradient: torch.Tensor, memory: Memory, step: int, group: Settings
) -> tuple[torch.Tensor, Memory]:
    """Squared gradients remembered by row and column of a matrix (Shazeer & Stern 2018, "Adafactor", algorithms 4 and
    5), at the rate that is asked for, without momentum."""
    keep = 1 - step**-ADAFACTOR_POWER
    square = gradient.square() + ADAFACTOR_FLOOR
    if weights.ndim > 2:
        now = {"row": square.mean(-1), "column": square.mean(-2)}
        found = {
            name: value if name not in memory else memory[name].lerp(value, 1 - keep) for name, value in now.items()
        }
        row, column = found["row"], found["column"]
        by_row = (row / row.mean(-1, keepdim=True)).rsqrt()
        change = gradient * by_row[..., None] * column.rsqrt()[..., None, :]
    else:
        found = {"square": square if "square" not in memory else memory["square"].lerp(square, 1 - keep)}
        change = gradient * found["square"].rsqrt()
    size = torch.linalg.vector_norm(change.flatten(1), dim=1) / sqrt(change[0].numel())
    size = (size / ADAFACTOR_RMS).clamp(min=1.0).reshape(-1, *[1] * (weights.ndim - 1))
    rate = group["lr"]
    return weights.mul(1 - rate * group["weight_decay"]).sub(change / size * rate), found


def muon(
    weights: torch.Tensor, gradient: torch.Tensor, memory: Memory, step: int, group: Settings
) -> tuple[torch.Tensor, Memory]:
    """Momentum, made orthogonal (Jordan et al. 2024, "Muon"), at AdamW's size (Liu et al. 2025, "Muon is scalable for
    LLM training", equation 4); for matrices, (R, rows, columns)."""
    decay = group["betas"][0]
    mean = memory.get("momentum")
    mean = torch.zeros_like(weights) if mean is None else mean
    mean = mean.lerp(gradient, 1 - decay)
    change = orthogonal(gradient.lerp(mean, decay))
    rate, size = group["lr"], OF_ADAM * sqrt(max(weights.shape[-2:]))
    return weights.mul(1 - rate * group["weight_decay"]).add(change, alpha=-rate * size), {"momentum": mean}


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Bring the singular values of ``matrices`` (R, rows, columns) near 1, by Newton-Schulz iterations."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.mT if tall else matrices
    found = found / torch.linalg.matrix_norm(found, keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        product = found @ found.mT
        found = a * found + (b * product + c * product @ product) @ found
    return found.mT if tall else found


ELEMENTWISE = ("adamw", "lion")
"""Rules by which each weight's step is told by its own gradient and memory alone."""

RULES: dict[str, Rule] = {"adamw": adamw, "lion": lion, "adafactor": adafactor, "muon": muon}
"""By the name of the optimizer. Muon trains other parameters than the matrices of the blocks by `adamw`."""
