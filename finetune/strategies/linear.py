"""Only the head learns, on frozen features: a linear probe (Alain & Bengio 2016; Kumar et al. 2022, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from finetune.errors import bad_input
from finetune.options import Options
from finetune.registry import STRATEGIES
from finetune.strategies.base import Strategy, train_only

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class LinearOptions(Options):
    """A probe has nothing to choose."""

    type: Literal["linear"]


@STRATEGIES.register
class Linear(Strategy):
    """Trains only the task's head on the frozen base model: a linear probe."""

    name: ClassVar[str] = "linear"
    Options = LinearOptions
    needs_head: ClassVar[bool] = True

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        if not head:
            raise bad_input("strategy.type", "this model and task have no head to train", "use partial or adapter")
        train_only(model, head)
        return model
