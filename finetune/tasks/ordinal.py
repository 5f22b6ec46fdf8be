"""Ordered classes by conditional probabilities: CORN (Shi, Cao and Raschka 2023, "Deep Neural Networks for
Rank-Consistent Ordinal Regression Based On Conditional Probabilities", section 3).

A head of K - 1 outputs f for K classes: output k says how likely an answer beyond class k is, where it is not below it,
P(y > k | y ≥ k) = sigmoid(f_k). From these follow the probabilities of all classes, P(y = k) = P(y > k - 1) (1 -
sigmoid(f_k)), which add up to 1, and P(y > k) never rises with k. The sum of the authors' binary losses over the
subsets that an example belongs to is the negative log of its class's probability; where they divide by how many belong
to all subsets together, the loss here is a mean over examples, as of other classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def outputs_for(labels: Sequence[str]) -> list[str]:
    """Name the head's outputs, (K - 1,)."""
    return [f"> {label}" for label in labels[:-1]]


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Turn the head's outputs (N, K - 1) into log-probabilities of the classes, (N, K)."""
    import torch
    from torch.nn.functional import logsigmoid

    nothing = logits.new_zeros(len(logits), 1)
    beyond = torch.cat([nothing, logsigmoid(logits).cumsum(1)], 1)  # log P(y > k - 1)
    return beyond + torch.cat([logsigmoid(-logits), nothing], 1)


def median(probabilities: np.ndarray) -> int:
    """Give the authors' answer, of ``probabilities`` (K,): how many P(y > k) are above one half. It is the median,
    whose mean distance from the right rank is least."""
    return int((1 - np.cumsum(probabilities[:-1], dtype=float) > 0.5).sum())
