"""Draws the top blocks afresh, since they are the most specialised on pretraining (Zhang et al. 2021, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation
from finetune.models import initialise
from finetune.strategies.blocks import last_blocks, parameters_above

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ReinitOptions(Options):
    """How much is drawn afresh."""

    type: Literal["reinit"]
    layers: int = Field(2, ge=1)
    """The last so many blocks, and what lies above them (final norm, pooler). Zhang et al. try 1 to 6."""


@MITIGATIONS.register
class Reinit(Mitigation):
    """Re-initialises the last blocks of the base model before training.

    Source: Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning", section 5.

    Not for: strategies that leave the top frozen, which are refused. Models whose top blocks do what the task needs,
    such as language models that go on writing, or encoders tuned for the task before. Models that tune stably anyway:
    Du & Nguyen 2023 find it to help RoBERTa-large on RTE, and BERT-large not.
    """

    name: ClassVar[str] = "reinit"
    Options = ReinitOptions
    redraws: ClassVar[bool] = True

    options: ReinitOptions

    def prepare(self, model: PreTrainedModel, head: set[str], at: str) -> set[str]:
        lowest = last_blocks(model, self.options.layers, f"{at}.layers")[0]
        drawn = parameters_above(model, lowest) - head
        initialise(model, drawn)
        return drawn
