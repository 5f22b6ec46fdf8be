"""The forward and backward passes of one optimizer step, in parts and over processes, for R runs side by side.

Shapes: R replicas; N rows in a part, those of all replicas together; losses (R,).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch

from finetune.randomness import seed_everything
from finetune.surroundings import Surroundings
from finetune.tasks.base import Example, Task
from finetune.train.batching import BatchPlan, micro_batches


@dataclass(frozen=True)
class Passes:
    """Leaves the gradient of a whole optimizer batch in the model's parameters."""

    model: torch.nn.Module
    task: Task
    examples: Sequence[Example]
    plans: Sequence[BatchPlan]
    """One for each replica."""
    micro_batch: int
    """Examples of one replica in a part, at most."""
    around: Surroundings

    def run(self, step: int) -> tuple[torch.Tensor, dict[str, int]]:
        """Losses (R,) of optimizer step ``step`` (from 0), and how many examples, tokens, tokens with padding it took.

        The loss is the sum over the whole batch (all parts and processes) divided by the whole batch's label tokens
        or examples, which are known before any of it has run: accumulation changes nothing.
        """
        around, accelerator = self.around, self.around.accelerator
        batches = [[self.examples[index] for index in plan.batch(step)] for plan in self.plans]
        total = torch.tensor([sum(example.weight for example in batch) for batch in batches], device=around.device)
        parts, padded, losses = self._parts(step), 0, torch.zeros_like(total)
        for number, part in enumerate(parts):
            # Position-addressed: resuming needs no random state, and evaluation cannot shift the masks.
            place = (step, number, accelerator.process_index)
            seed_everything(self.plans[0].streams.seed_of("dropout", *place))
            last = number == len(parts) - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                shares, size = self._shares(part, total)
                # DDP averages gradients over processes; the loss is already divided by the whole batch.
                accelerator.backward(shares.sum() * accelerator.num_processes)
            losses, padded = losses + shares.detach(), padded + size
        counted = {
            "examples": sum(map(len, batches)),
            "tokens": sum(example.length for batch in batches for example in batch),
            "padded": round(around.total(padded)),
        }
        return accelerator.reduce(losses, "sum"), counted

    def _parts(self, step: int) -> list[tuple[np.ndarray, ...]]:
        """This process's parts of the batch, each with the indices of every replica's examples."""
        accelerator = self.around.accelerator
        share = (self.micro_batch, accelerator.process_index, accelerator.num_processes)
        by_replica = [micro_batches(plan.batch(step), plan.lengths, *share) for plan in self.plans]
        return list(zip_longest(*by_replica, fillvalue=np.empty(0, dtype=int)))

    def _shares(self, part: Sequence[np.ndarray], total: torch.Tensor) -> tuple[torch.Tensor, int]:
        """What a part adds to each replica's loss, (R,), with its graph, and the part's tokens with padding."""
        indices = np.concatenate(part)
        owner = np.repeat(np.arange(len(part)), [len(rows) for rows in part])
        weight = 1.0
        if len(indices) == 0:
            # Every process has to take part in every synchronised pass, even with nothing to add.
            indices, owner, weight = np.array([0]), np.array([0]), 0.0
        rows = [self.examples[index] for index in indices]
        batch = {name: value.to(self.around.device) for name, value in self.task.collate(rows).items()}
        with self.around.arithmetic():
            losses = self.task.losses(self.model, batch) * weight
        owners = torch.as_tensor(owner, device=losses.device)
        shares = torch.zeros_like(total).index_add(0, owners, losses) / total
        return shares, batch["input_ids"].numel() if weight else 0
