"""The base class of R3F and R4F: a second pass with noise on the input embeddings, and a penalty on outputs that differ
there (Aghajanyan et al. 2021, section 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetune.core.options import Options
from finetune.mitigations.base import Mitigation
from finetune.mitigations.perturb import added, noise_like, perturbed, symmetric_kl

if TYPE_CHECKING:
    import torch

    from finetune.core.examples import Outputs


class NoiseOptions(Options):
    """How much noise the input embeddings get, and how much it matters what the model makes of it."""

    strength: float = Field(1.0, ge=0)
    """The paper's lambda: what the divergence is multiplied with before it is added to the loss. 1 is the default of
    the authors' code. 0 is plain training, without a second pass."""
    eps: float = Field(1.0e-5, ge=0)
    """How large the noise is, in units of an embedding: the bound of uniform noise, the standard deviation of normal.
    1e-5 is the default of the authors' code."""
    noise: Literal["uniform", "normal"] = "uniform"
    """How the noise is distributed; uniform is the default of the authors' code."""


class Noised(Mitigation):
    """Adds to the loss the symmetric divergence between what a model says with and without noise."""

    shapes_losses: ClassVar[bool] = True
    contradicts: ClassVar[dict[str, str]] = {
        "preference": "it changes the loss of single answers, and with this strategy losses are those of pairs",
        "smart": "both hold predictions together under changed embeddings, and would do it twice",
        "neftune": "its noise is in both passes, and thousands of times as large as that between them",
    }

    options: NoiseOptions

    @property
    def can_cache_prefix(self) -> bool:
        return False

    def losses(self, losses: torch.Tensor, outputs: Outputs, again: Callable[[], Outputs]) -> torch.Tensor:
        if not self.options.strength:
            return losses
        with perturbed(self.training_state.model, self._noised):
            noised = again()
        apart = symmetric_kl(outputs.logits, noised.logits)
        return losses + self.options.strength * outputs.by_example(apart)

    def _noised(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Add noise to ``embeddings`` (rows, T, D)."""
        return added(embeddings, self.options.eps * noise_like(self.training_state, embeddings, self.options.noise))
