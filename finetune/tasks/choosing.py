"""What tasks have in common whose model scores the candidate answers of each example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.core.examples import Batch, Example
from finetune.tasks.base import Task

if TYPE_CHECKING:
    import numpy as np
    import torch

    from finetune.core.encoded import Examples
    from finetune.tasks.candidates import Scorer


class ChoosingTask(Task):
    """A task that lays out, and scores, the candidates of its examples as its ``scorer`` does."""

    @property
    def scorer(self) -> Scorer:
        """Give what scores candidates."""
        raise NotImplementedError

    def positions(self, examples: Examples) -> np.ndarray:
        return self.scorer.positions(examples)

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        return self.scorer.collate(examples)

    def arranged(self, model: torch.nn.Module, batch: Batch) -> Batch:
        return self.scorer.arranged(model, batch)

    def loss_path(self, model: torch.nn.Module, replicas: int = 1) -> str | None:
        return self.in_words(self.scorer.loss_path(model, replicas))
