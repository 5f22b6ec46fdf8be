"""Hashes that tell whether two things are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from finetune.progress import phase

if TYPE_CHECKING:
    import torch


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """32 hex digits over tensors, in their order, and their names."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    with phase("computing the digest of weights", len(weights)) as under_way:
        for number, (name, value) in enumerate(weights.items(), start=1):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            under_way.step(number)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """32 hex digits over a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
