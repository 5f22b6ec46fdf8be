"""Loss scaling: training in float16, whose smallest number is 6e-8, so that small gradients would vanish.

The loss is multiplied before the backward pass and the gradient divided after it; where that overflows, the step is
left out and the factor halved (Micikevicius et al. 2018, "Mixed precision training", section 3.2). Each of R runs side
by side has its own factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from finetune.train.optimizer import scale_gradients
from finetune.train.state import ReplicaState

FIRST, LEAST = 2.0**16, 1.0
"""The factor to begin with, and the one below which a gradient that is not finite is not the factor's fault."""

GROWS = 2000
"""Steps in a row without overflow after which the factor is doubled."""


class LossScale:
    """The factors of R runs, which are in their states, and so in their checkpoints."""

    def __init__(self, states: Sequence[ReplicaState], device: torch.device):
        self.states, self.device = states, device
        self._left_out: list[int] = []
        for state in states:
            state.scale = state.scale or FIRST

    @property
    def factors(self) -> torch.Tensor:
        """Give the factor of each run's loss: (R,)."""
        return torch.tensor([state.scale for state in self.states], device=self.device)

    def unscale(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Divide gradients by the factors that their losses were multiplied by."""
        scale_gradients(parameters, 1 / self.factors)

    def overflowed(self, losses: Sequence[float], norms: Sequence[float]) -> list[int]:
        """List the runs whose step, by its loss and gradient norm, is to be left out, for another try with a smaller
        factor: not those that no factor would help."""
        self._left_out = []
        for number, (state, loss, norm) in enumerate(zip(self.states, losses, norms, strict=True)):
            if state.active and self._overflows(state, math.isfinite(loss) and math.isfinite(norm)):
                self._left_out.append(number)
        return self._left_out

    @staticmethod
    def _overflows(state: ReplicaState, finite: bool) -> bool:
        state.since_overflow = state.since_overflow + 1 if finite else 0
        if not finite:
            state.scale, state.overflowed = (state.scale or FIRST) / 2, state.overflowed + 1
            return state.scale >= LEAST
        if state.since_overflow == GROWS:
            state.scale, state.since_overflow = 2 * (state.scale or FIRST), 0
        return False

    def left_out(self, parameters: Iterable[torch.nn.Parameter], norms: torch.Tensor) -> list[int]:
        """List the same once more, after setting their gradients and norms (R,) to zero: what is not finite would stay
        in the optimizer's memory."""
        for parameter in parameters if self._left_out else ():
            if parameter.grad is not None:
                parameter.grad.view(len(self.states), -1)[self._left_out] = 0.0
        norms[self._left_out] = 0.0
        return self._left_out
