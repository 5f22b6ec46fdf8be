"""The training loss of each source of a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from finetune.core.examples import Example
from finetune.core.runtime import Runtime
from finetune.train.meters import finite


@dataclass(frozen=True)
class Portions:
    """Which source of a mixture each training example is from."""

    names: Sequence[str]
    of: np.ndarray
    """By an example's number, the place of its source among the names."""


@dataclass
class PortionLosses:
    """The losses of one optimizer step by source, of R runs and S sources: (R, S)."""

    portions: Portions
    runs: int
    device: torch.device
    _sums: torch.Tensor = field(init=False)
    _weights: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a step."""
        shape = (self.runs, len(self.portions.names))
        self._sums, self._weights = (torch.zeros(shape, device=self.device) for _ in range(2))

    def add(self, examples: Sequence[Example], owners: torch.Tensor, losses: torch.Tensor) -> None:
        """Add the ``losses`` (N,) of ``examples``, which are those of the runs ``owners`` (N,)."""
        sources = torch.as_tensor(self.portions.of[[example.number for example in examples]], device=self.device)
        weights = torch.tensor([example.weight for example in examples], device=self.device, dtype=torch.float32)
        self._sums.index_put_((owners, sources), losses.detach().float(), accumulate=True)
        self._weights.index_put_((owners, sources), weights, accumulate=True)

    def means(self, runtime: Runtime) -> list[dict[str, float | None]]:
        """Give each run's mean loss by source, null for one that the step had no example of. All processes have to
        ask."""
        sums, weights = (runtime.accelerator.reduce(each, "sum").tolist() for each in (self._sums, self._weights))
        return [
            {
                name: finite(total / weight) if weight else None
                for name, total, weight in zip(self.portions.names, own, weighed, strict=True)
            }
            for own, weighed in zip(sums, weights, strict=True)
        ]
