"""Smoothness-inducing adversarial regularisation: SMART (Jiang et al. 2020, section 3.1 and algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation
from finetune.mitigations.perturb import added, noise_like, over_examples, perturbed, symmetric_kl

if TYPE_CHECKING:
    import torch

    from finetune.core.examples import Outputs


class SmartOptions(Options):
    """How the worst small change of the input embeddings is looked for, and how much it matters."""

    type: Literal["smart"]
    strength: float = Field(1.0, ge=0)
    """The paper's lambda: what the divergence is multiplied with before it is added to the loss. 1 is the default of
    the authors' code; the paper tries 1, 3 and 5. 0 is plain training, without further passes."""
    sigma: float = Field(1.0e-5, gt=0)
    """Standard deviation of the normal noise from which the search starts, in units of an embedding; at no change at
    all the divergence has no slope to follow."""
    steps: int = Field(1, ge=1)
    """Steps of ascent (K, each another pass forward and backward)."""
    eta: float = Field(1.0e-3, gt=0)
    """How far a step goes where the slope is steepest, in units of an embedding."""
    epsilon: float = Field(1.0e-6, gt=0)
    """How far any feature of an embedding may be changed: radius of the ball around it. 1e-6 bears this name in the
    authors' code, which only keeps a division from zero with it, and has no ball."""


@MITIGATIONS.register
class Smart(Mitigation):
    """Keeps predictions the same under the worst small change of the input embeddings.

    To the loss it adds strength times the symmetric Kullback-Leibler divergence between what the model says of an
    example, for each label, and what it says with its embeddings changed. The change starts from normal noise, takes
    `steps` steps of length `eta` up the divergence's slope, which is divided by its largest component in the example,
    and is brought back into the ball after each. With the default options the start lies outside the ball, as nothing
    in the algorithm forbids: it is where the slope is taken, and only what has been brought back enters the loss. As
    `eta` is far larger than `epsilon`, that is nearly the corner of the ball to which the slope points. Each pass has
    its own dropout masks, as in the authors' code. Gradients flow through both passes that enter the loss; the
    authors' code cuts some off, and takes the step without bringing it back. Their other half, Bregman proximal point
    optimisation, is not part of this.

    Source: Jiang et al. 2020, "SMART: Robust and Efficient Fine-Tuning for Pre-trained Natural Language Models through
    Principled Regularized Optimization", section 3.1 and algorithm 1.

    Not for: bfloat16 arithmetic at the default sizes, which are lost there in rounding; write `model.dtype: float32`
    or larger ones. Nor where time is short: a step takes about three times as long; r3f comes close to it for less.
    """

    name: ClassVar[str] = "smart"
    Options = SmartOptions
    shapes_losses: ClassVar[bool] = True
    contradicts: ClassVar[dict[str, str]] = {
        "preference": "it changes the loss of single answers, and with this strategy losses are those of pairs",
        "neftune": "its noise is in all passes, and thousands of times as large as the changes between them",
    }

    options: SmartOptions

    @property
    def can_cache_prefix(self) -> bool:
        return False

    def losses(self, losses: torch.Tensor, outputs: Outputs, again: Callable[[], Outputs]) -> torch.Tensor:
        if not self.options.strength:
            return losses
        change = self.worst_change(outputs, again)
        with perturbed(self.training_state.model, lambda embeddings: added(embeddings, change)):
            changed = again()
        apart = symmetric_kl(outputs.logits, changed.logits)
        return losses + self.options.strength * outputs.by_example(apart)

    def worst_change(self, outputs: Outputs, again: Callable[[], Outputs]) -> torch.Tensor:
        """Find the worst small change of the input embeddings: (rows, T, D), float32."""
        import torch

        wanted, options = outputs.logits.detach(), self.options
        change: Any = None

        def changed(embeddings: torch.Tensor) -> torch.Tensor:
            nonlocal change
            if change is None:
                change = options.sigma * noise_like(self.training_state, embeddings, "normal")
            change.requires_grad_()
            return added(embeddings, change)

        for _ in range(options.steps):
            with perturbed(self.training_state.model, changed):
                apart = symmetric_kl(again().logits, wanted)
            [slope] = torch.autograd.grad(apart.sum(), change)
            steepest = over_examples(self.training_state, slope.abs().amax(-1), "amax")
            step = options.eta * slope / steepest.clamp(min=torch.finfo(slope.dtype).tiny)[..., None]
            change = (change.detach() + step).clamp(-options.epsilon, options.epsilon)
        return change
