"""Softens the targets: each class gets a small share of what the right one gets (Szegedy et al. 2016, section 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation

if TYPE_CHECKING:
    import torch

    from finetune.core.examples import Outputs


class LabelSmoothingOptions(Options):
    """How soft the targets are."""

    type: Literal["label-smoothing"]
    epsilon: float = Field(0.1, ge=0, lt=1)
    """Share of the target that is spread evenly over all classes or tokens, the right one among them. 0 is plain
    cross-entropy; 0.1 is the authors' value."""


@MITIGATIONS.register
class LabelSmoothing(Mitigation):
    """Learns from softened labels, so that the model does not grow surer than it should be.

    The loss is (1 - epsilon) times the negative log-likelihood of the right class, plus epsilon times the mean
    negative log-likelihood over all classes. Losses of the training log are those; scores stay plain.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7.

    Not for: models whose probabilities are to be taken as they are. Smoothing moves calibration, for the better or
    for the worse, and a model that it has trained makes a poor teacher (Müller et al. 2019).
    """

    name: ClassVar[str] = "label-smoothing"
    Options = LabelSmoothingOptions
    shapes_losses: ClassVar[bool] = True
    contradicts: ClassVar[dict[str, str]] = {"preference": "its loss compares two answers, and has no class to soften"}

    options: LabelSmoothingOptions

    def losses(self, losses: torch.Tensor, outputs: Outputs, again: Callable[[], Outputs]) -> torch.Tensor:
        # As what it adds to the plain loss, so that it does not scale what others have added: the normaliser of the
        # softmax cancels, and the right class's logit is held against the mean one.
        ahead = outputs.logits.gather(1, outputs.targets[:, None])[:, 0] - outputs.mean_logits()
        return losses + self.options.epsilon * outputs.by_example(ahead)
