"""Every parameter learns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetune.options import Options
from finetune.registry import STRATEGIES
from finetune.strategies.base import Strategy, set_trained, train_only, trained_parameters

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class FullOptions(Options):
    """Full tuning has nothing to choose."""

    type: Literal["full"]


@STRATEGIES.register
class Full(Strategy):
    """Trains every parameter of the model."""

    name: ClassVar[str] = "full"
    Options = FullOptions

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        train_only(model, {name for name, _ in model.named_parameters()})
        return model

    def save(self, model: Any, folder: Path) -> None:
        """A complete model folder, which `from_pretrained` loads."""
        model.save_pretrained(folder)

    def restore(self, model: Any, folder: Path) -> None:
        saved = type(model).from_pretrained(folder, dtype="float32", local_files_only=True)
        set_trained(model, dict(trained_parameters(saved)))
