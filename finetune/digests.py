"""Hashes that tell whether two things are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """32 hex digits over tensors, in their order, and their names."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, value in weights.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """32 hex digits over a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
