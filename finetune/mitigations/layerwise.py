"""Lower blocks learn more slowly: discriminative learning rates (Howard & Ruder 2018, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetune.core.errors import bad_input
from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation
from finetune.strategies.rates import by_height

if TYPE_CHECKING:
    import torch


class LayerwiseDecayOptions(Options):
    """How much more slowly each lower block learns."""

    type: Literal["layerwise-decay"]
    decay: float = Field(0.95, gt=0, le=1)
    """A block's learning rate as a share of that of what stands above it; 1: all learn alike. The default is that of Du
    & Nguyen 2023 and Zhang et al. 2021; Howard & Ruder use 1/2.6, about 0.38, for an LSTM of three layers."""


@MITIGATIONS.register
class LayerwiseDecay(Mitigation):
    """Lowers the learning rate from block to block, from the top of the model to its embeddings.

    The head, and what else stands above the last block (pooler, final norm), has the recipe's rate; the last block has
    `decay` times that, the one below `decay` times its, and so on down to the embeddings, with `decay` to the number of
    blocks plus one. An encoder stands below its decoder. AdamW's weight decay, which is a share of the learning rate,
    falls with it.

    Source: Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.2; for BERT
    Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning", section 7, whose rates these are.

    Not for: probes, of which nothing below the head learns; pretraining on another language or domain, where the lowest
    layers have most to learn.
    """

    name: ClassVar[str] = "layerwise-decay"
    Options = LayerwiseDecayOptions

    options: LayerwiseDecayOptions

    def check(self, model: torch.nn.Module, fresh: frozenset[str], at: str) -> None:
        """Also takes note of where parameters stand, which the optimizer asks for before training begins."""
        self._factors = by_height(model, self.options.decay, at)
        learning = [name for name, value in model.named_parameters() if value.requires_grad]
        if self.options.decay < 1 and all(self._factors[name] == 1 for name in learning):
            found = "'layerwise-decay' has nothing to slow down: no block of this model learns, nor anything below"
            raise bad_input(at, found, "use strategy full, partial or adapter, or leave layerwise-decay out")

    def rate(self, parameter: str) -> float:
        return self._factors[parameter]
