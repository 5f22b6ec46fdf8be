"""The trained weights of a run group, replica by replica: (R, ...) stacked, or one run's own; of a sharded model, those
of this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from finetune.core.memory import room_on_disk
from finetune.core.sharding import renew, shards_of, stand_in
from finetune.strategies.base import trained_parameters

IN_MEMORY = 1 << 30
"""Bytes of a run's weights up to which a copy is kept in the host's memory; larger ones lie on disk."""


def keep(
    weights: Mapping[str, torch.Tensor], folder: Path, former: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Copy ``weights`` to where they take no room on their device: to the host's memory, or, where they are large, to
    ``folder``. The ``former`` copy, if there is one, is overwritten."""
    large = sum(value.nbytes for value in weights.values()) > IN_MEMORY
    kept = dict(former or {})
    for name, value in weights.items():
        if name not in kept:
            size, dtype = tuple(value.shape), value.dtype
            kept[name] = room_on_disk(size, dtype, folder) if large else torch.empty(size, dtype=dtype, device="cpu")
        kept[name].copy_(value)
    return kept


class Weights:
    """The trained weights, read and written row by row."""

    def __init__(self, model: torch.nn.Module, replicas: int):
        self.parameters, self.replicas = shards_of(model, trained_parameters(model)), replicas
        for parameter in self.parameters.values():
            # Each replica's row is read and written through views, which a transposed weight has none of.
            parameter.data = parameter.data.contiguous()

    def rows(self, parameter: torch.Tensor) -> torch.Tensor:
        """View each replica's weights in ``parameter``: (R, its size)."""
        return parameter.detach().view(self.replicas, -1)

    def of(self, number: int) -> dict[str, torch.Tensor]:
        """View one replica's weights, by name, each (its size,)."""
        return {name: self.rows(parameter)[number] for name, parameter in self.parameters.items()}

    def put(self, number: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Give one replica other weights."""
        for name, row in self.of(number).items():
            row.copy_(weights[name].flatten())
        renew(self.parameters.values())

    @contextmanager
    def unchanged(self, numbers: Sequence[int], others: Iterable[torch.Tensor] = ()) -> Iterator[None]:
        """Restore some replicas' weights, and their rows of ``others`` (R, ...), when the context ends."""
        held = [self.rows(value) for value in (*self.parameters.values(), *others)] if numbers else []
        before = [rows[numbers] for rows in held]
        yield
        for rows, own in zip(held, before, strict=True):
            rows[numbers] = own

    @contextmanager
    def replaced(self, others: Mapping[str, torch.Tensor] | None) -> Iterator[None]:
        """Within the context, put ``others`` in the place of all replicas' weights; None: nothing changes."""
        own = stand_in(self.parameters, others or {})
        try:
            yield
        finally:
            stand_in(self.parameters, own)
