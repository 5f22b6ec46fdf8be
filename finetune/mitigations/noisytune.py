"""Adds a little noise to every pretrained parameter before training starts (Wu et al. 2022, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NoisyTuneOptions(Options):
    """How strong the noise is."""

    type: Literal["noisytune"]
    intensity: float = Field(0.15, gt=0)
    """Width of the noise, in standard deviations of the parameter it is added to. Wu et al. 2022 find 0.1 to 0.15
    best."""


@MITIGATIONS.register
class NoisyTune(Mitigation):
    """Adds uniform noise to the pretrained weights before training, scaled to each parameter's spread.

    Each pretrained parameter tensor W becomes W + U(-l/2, l/2) std(W), once, before the first step: so that the model
    leaves what it overfitted to in pretraining. The spread is each tensor's own, since a noise of one size would drown
    some and not be felt by others. The head, which is drawn afresh anyway, is left alone.

    Source: Wu, Wu, Qi & Huang 2022, "NoisyTune: A Little Noise Can Help You Finetune Pretrained Language Models
    Better", section 2; 0.15 is its section 3's.

    Not for: strategies that leave weights frozen, which would keep the noise and never learn it away, and with it would
    have to be saved.
    """

    name: ClassVar[str] = "noisytune"
    Options = NoisyTuneOptions

    options: NoisyTuneOptions

    def prepare(self, model: PreTrainedModel, head: set[str], at: str) -> set[str]:
        import torch

        # A quantised weight is no number to add to; it is frozen, for which this mitigation is refused.
        noised = {
            name: value for name, value in model.named_parameters() if name not in head and value.is_floating_point()
        }
        with torch.no_grad():
            for value in noised.values():
                # The correction for few values would make the spread of a lone number none at all.
                value.add_((torch.rand_like(value) - 0.5) * (self.options.intensity * value.std(correction=0)))
        return set(noised)
