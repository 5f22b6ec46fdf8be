"""Scores and keeps an exponential moving average of the weights (Kingma & Ba 2015, section 7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.averaging import Averaging

if TYPE_CHECKING:
    from finetune.core.hooks import TrainingState


class EMAOptions(Options):
    """How far back the average reaches."""

    type: Literal["ema"]
    decay: float = Field(0.999, ge=0, lt=1)
    """Share of the average that stays at a step, once 9 / (1 - decay) steps are done; until then less, so that the
    average is of about the last tenth of the steps so far. Common values are 0.99 to 0.9999."""


@MITIGATIONS.register
class EMA(Averaging):
    """Scores and keeps an exponential moving average of the weights instead of the last ones.

    After step t (from 0) the average moves by the share 1 - min(decay, (1 + t) / (10 + t)) of the way to the weights.
    It starts where training starts, and what stays the same is its own average; but of where it started only 1e-5 is
    left after ten steps. In short runs the growing share decides: the average is of about the last tenth of the
    steps so far, and `decay` itself takes over after 9 / (1 - decay) steps (9,000 for 0.999). Training goes on as it
    would without; validation, the choice of the best step, and everything afterwards see the average.

    Source: Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization", section 7.2 (temporal averaging, after
    Polyak & Juditsky 1992). The growing decay takes the place of their division by 1 - decay^t, under which a run much
    shorter than 1 / (1 - decay) steps would average all of its steps alike, the untrained first ones too.

    Not for: runs of a few dozen steps, whose last weights are the best they have.
    """

    name: ClassVar[str] = "ema"
    Options = EMAOptions
    contradicts: ClassVar[dict[str, str]] = {"swa": "only one average of the weights can be scored and kept"}

    options: EMAOptions

    def begin(self, training_state: TrainingState) -> None:
        super().begin(training_state)
        self.start()

    def stepped(self, rate: float) -> None:
        done = self.training_state.step
        self.include(1 - min(self.options.decay, (1 + done) / (10 + done)))
