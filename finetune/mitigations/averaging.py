"""The base class of the mitigations that score and keep an average of the weights of many steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from finetune.mitigations.base import Mitigation

if TYPE_CHECKING:
    import torch


class Averaging(Mitigation):
    """Averages what learns. Training itself goes on as it would without."""

    averages: dict[str, torch.Tensor]
    """By name, each of its parameter's shape; empty as long as there is nothing to average."""

    @property
    def can_shard(self) -> bool:
        return True

    def start(self) -> None:
        """Begin the averages with the weights as they are."""
        self.averages = {name: value.detach().clone() for name, value in self.training_state.parameters.items()}

    def include(self, share: float) -> None:
        """Move the averages this share of the way to the weights as they are."""
        for name, value in self.training_state.parameters.items():
            self.averages[name].lerp_(value.detach(), share)

    def scored(self) -> dict[str, torch.Tensor] | None:
        return self.averages or None

    def state(self) -> dict[str, torch.Tensor]:
        return {name: self.training_state.rows(value) for name, value in self.averages.items()}

    def resume(self, state: Mapping[str, torch.Tensor]) -> None:
        like = self.training_state.parameters
        self.averages = {name: rows.to(like[name].device).view_as(like[name]) for name, rows in state.items()}
