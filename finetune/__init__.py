"""Fine-tune pretrained models from a recipe, under several seeds, and report every number with its uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.run.saved import LoadedModel

__version__ = "0.1.0"

__all__ = ["__version__", "load_model"]


def load_model(folder: str | Path) -> LoadedModel:
    """``model, tokenizer = load_model("runs/NAME/VARIANT/seed-0")``: see :func:`finetune.run.saved.load_model`."""
    from finetune.run import saved

    return saved.load_model(folder)
