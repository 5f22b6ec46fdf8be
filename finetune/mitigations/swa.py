"""Scores and keeps the equal average of the weights of the last steps: SWA (Izmailov et al. 2018, section 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.averaging import Averaging

if TYPE_CHECKING:
    from finetune.core.hooks import TrainingState


class SWAOptions(Options):
    """Which steps are averaged."""

    type: Literal["swa"]
    start: float = Field(0.75, ge=0, lt=1)
    """Share of all steps after which averaging begins; Izmailov et al. 2018 begin after three quarters."""


@MITIGATIONS.register
class SWA(Averaging):
    """Scores and keeps the equal average of the weights of the last steps (stochastic weight averaging).

    The weights after every step from `start` on count alike. Before, the weights themselves are scored, and under
    `train.keep: best` they may be the ones that are kept. The learning rate is left to the recipe: the paper keeps it
    constant, or cyclical, while it averages, so write `train.schedule: constant` for what is published. Under a
    schedule that falls to zero the last steps hardly differ, and their average changes little.

    Source: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", section 3. They
    average once an epoch, or once a cycle; here it is after every step, because fine-tuning has few epochs.

    Not for: runs so short that the weights still travel while they are averaged; a schedule that falls to zero.
    """

    name: ClassVar[str] = "swa"
    Options = SWAOptions
    contradicts: ClassVar[dict[str, str]] = {"ema": "only one average of the weights can be scored and kept"}

    options: SWAOptions

    def begin(self, training_state: TrainingState) -> None:
        super().begin(training_state)
        self.averages = {}
        self._first = min(math.ceil(self.options.start * training_state.steps), training_state.steps - 1)

    def gradients(self) -> None:
        # Before the step, so that a run which has ended by then keeps the weights it ended with.
        if self.training_state.step == self._first:
            self.start()

    def stepped(self, rate: float) -> None:
        if self.training_state.step >= self._first:
            self.include(1 / (self.training_state.step - self._first + 1))
