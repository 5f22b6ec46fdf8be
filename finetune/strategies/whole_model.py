"""The base class of strategies that train the whole model, and how whole models are read and adapters merged into
them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.strategies.base import Strategy, set_trained, train_only, trained_parameters

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class WholeModel(Strategy):
    """Every parameter learns, and what is saved is a complete model."""

    @property
    def reads_weights(self) -> bool:
        return False

    @property
    def library(self) -> Literal["transformers"]:
        return "transformers"

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        train_only(model, {name for name, _ in model.named_parameters()})
        return model

    def save(self, model: Any, folder: Path) -> None:
        """Write a complete model folder, which `from_pretrained` loads."""
        model.save_pretrained(folder)

    def restore(self, model: Any, folder: Path) -> None:
        restore_whole_model(model, folder)


def restore_whole_model(model: Any, folder: Path) -> None:
    """Put the weights of a complete model folder into a freshly prepared model, all of which learns but what is
    idle."""
    saved = type(model).from_pretrained(folder, dtype="float32", local_files_only=True)
    idle = {name for name, value in model.named_parameters() if not value.requires_grad}
    set_trained(model, {name: value for name, value in trained_parameters(saved).items() if name not in idle})


def merged(model: Any) -> Any:
    """Merge adapters into the weights of the model, all of which then count as learnt.

    A model whose adapters are no change of weights (such as a learnt prompt), or that has none, stays as it is.
    """
    for value in model.parameters():
        if not value.requires_grad:  # which other runs may have too
            value.data = value.data.clone()
    return model.merge_and_unload().requires_grad_(True) if hasattr(model, "merge_and_unload") else model
