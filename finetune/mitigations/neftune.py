"""Noise on the input embeddings while training: NEFTune (Jain et al. 2024, section 2 and algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation
from finetune.mitigations.perturb import added, noise_like, over_examples, perturbed

if TYPE_CHECKING:
    import torch


class NEFTuneOptions(Options):
    """How large the noise is."""

    type: Literal["neftune"]
    alpha: float = Field(5.0, ge=0)
    """The noise is uniform between -1 and 1, times alpha / sqrt(tokens of the example * features of an embedding): its
    length is about alpha / sqrt(3), however long the example. The paper tries 5, 10 and 15. 0: none."""


@MITIGATIONS.register
class NEFTune(Mitigation):
    """Adds uniform noise to the input embeddings in training, so that texts are not learnt by heart.

    The number of tokens is the example's own: padding, which common implementations count, and examples packed into
    the same row do not make its noise smaller. Scoring has no noise. In encoder-decoder models the encoder has it.

    Source: Jain et al. 2024, "NEFTune: Noisy Embeddings Improve Instruction Finetuning", section 2.

    Not for: short answers that have to be exactly right. Its gains were found in how liked long chat answers are, not
    in how right they are.
    """

    name: ClassVar[str] = "neftune"
    Options = NEFTuneOptions

    options: NEFTuneOptions

    @property
    def can_cache_prefix(self) -> bool:
        return False

    @contextmanager
    def passing(self) -> Iterator[None]:
        with perturbed(self.training_state.model, self._noised):
            yield

    def _noised(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Add noise to ``embeddings`` (rows, T, D)."""
        noise = noise_like(self.training_state, embeddings, "uniform")
        tokens = over_examples(self.training_state, noise.new_ones(noise.shape[:2]), "sum")
        scale = self.options.alpha / (tokens * noise.shape[2]).sqrt()
        return added(embeddings, noise * scale[..., None])
