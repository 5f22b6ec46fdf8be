"""Decays weights towards where they started instead of towards zero: L2-SP (Li et al. 2018, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetune.core.errors import bad_input
from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation

if TYPE_CHECKING:
    import torch

    from finetune.core.hooks import TrainingState


class L2SPOptions(Options):
    """How strongly weights are held."""

    type: Literal["l2-sp"]
    strength: float = Field(1.0e-3, ge=0)
    """Of the pull towards the pretrained weights: the penalty is half of it, times the squared distance (alpha in Li et
    al. 2018, whose own script has 0.1 for convolutional networks). The default is Zhang et al. 2021's for BERT."""
    beta: float = Field(0.01, ge=0)
    """Of the pull towards zero of matrices without a pretrained value (the head); 0.01 in Li et al. 2018's script."""


@MITIGATIONS.register
class L2SP(Mitigation):
    """Penalises the distance from the pretrained weights, instead of AdamW's decay towards zero.

    The loss gains strength/2 ||W - W0||^2 over the matrices W that have a pretrained value W0, and beta/2 ||V||^2 over
    those that have none; AdamW's own decay is off. Biases and norms are left free, as in the authors' code. The
    penalty's gradient is added to the loss's, as published, before it is clipped and AdamW rescales it. Zhang et al.
    2021 and Du & Nguyen 2023 decouple it from the gradient, as AdamW's decay is; then it is multiplied with the
    learning rate alone, and at 5e-5, over 1,000 steps, a strength of 1e-3 takes back 0.005 % of the way, which is
    nothing. Within the gradient it holds most where the loss says little, and it means the same to every optimizer.
    Logged losses are without it; logged gradient norms are with it.

    Source: Li, Grandvalet & Davoine 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks",
    section 3.

    Not for: adapters and probes, of which nothing that learns has a pretrained value; a task far from pretraining.
    """

    name: ClassVar[str] = "l2-sp"
    Options = L2SPOptions

    options: L2SPOptions

    @property
    def can_shard(self) -> bool:
        return True

    def check(self, model: torch.nn.Module, fresh: frozenset[str], at: str) -> None:
        learning = ((name, value) for name, value in model.named_parameters() if value.requires_grad)
        if not any(name not in fresh and value.ndim > 1 for name, value in learning):
            found = "'l2-sp' has nothing to hold: no matrix learns that has a pretrained value"
            raise bad_input(at, found, "use strategy full or partial, or leave l2-sp out")

    def begin(self, training_state: TrainingState) -> None:
        super().begin(training_state)
        one = 1 if len(training_state.streams) == 1 else 2  # dimensions of a bias, alone or stacked
        self._matrices = {name: value for name, value in training_state.parameters.items() if value.ndim > one}
        self._starts = {
            name: self._matrices[name].detach().clone() for name in self._matrices.keys() - training_state.fresh
        }

    def decays(self, parameter: str) -> bool:
        return False

    def gradients(self) -> None:
        for name, value in self._matrices.items():
            if value.grad is None:
                continue
            if name in self._starts:
                value.grad.add_(value.detach() - self._starts[name], alpha=self.options.strength)
            else:
                value.grad.add_(value.detach(), alpha=self.options.beta)
