"""Models over the bare model's last hidden states, pooled into one vector: a classifier, with one linear layer above
it, and one that gives the vector itself.

What transformers' own classes do instead differs with the family: a tanh layer over the first token, the last token
alone, two layers, the decoder's end token. Mean pooling for sentence vectors is from Reimers & Gurevych 2019,
"Sentence-BERT", section 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.models.configuration import dropout_of, width_of
from finetune.models.headed import HeadedModel
from finetune.models.pooling import Pooling

HEAD = "classification_head"

POOLING = "pooling.json"
"""File beside a saved model that says how it pools."""


class Pooled(HeadedModel):
    """A bare model whose hidden states are pooled, and what is above them."""

    def __init__(self, bare: PreTrainedModel, pooling: Pooling | None = None):
        super().__init__(bare)
        self.pooling = pooling or Pooling(mode="auto")

    @classmethod
    def has_saved(cls, folder: Path) -> bool:
        return (folder / POOLING).exists()

    @classmethod
    def _read(cls, folder: Path, dtype: Any) -> Any:
        model = super()._read(folder, dtype)
        model.pooling = read_pooling(folder) or model.pooling
        return model

    def save_pretrained(self, save_directory: Any, *arguments: Any, **settings: Any) -> None:
        super().save_pretrained(save_directory, *arguments, **settings)
        write_pooling(self, Path(save_directory))

    def vectors(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, **inputs: Any
    ) -> torch.Tensor:
        """Compute what is pooled: (rows, features)."""
        hidden = self.features(input_ids, attention_mask, **inputs)
        found = pool(hidden, attention_mask, "mean" if self.pooling.mode == "auto" else self.pooling.mode)
        return normalize(found, dim=-1) if self.pooling.normalise else found


class PooledForSequenceClassification(Pooled):
    """One linear layer over the pooled hidden states of a bare model."""

    head_name = HEAD

    def __init__(self, bare: PreTrainedModel, pooling: Pooling | None = None):
        super().__init__(bare, pooling)
        self.dropout = torch.nn.Dropout(dropout_of(self._bare.config))

    def make_head(self) -> torch.nn.Module:
        return torch.nn.Linear(width_of(self._bare.config), int(self.config.num_labels or 0))

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Logits (rows, labels), and with ``labels`` (rows,) their mean cross-entropy; of one output, the mean squared
        error, as transformers' own classes have it."""
        logits = self._head(self.dropout(self.vectors(input_ids, attention_mask, **inputs)))
        loss = None
        if labels is not None and logits.shape[-1] == 1:
            loss = torch.nn.functional.mse_loss(logits[:, 0].float(), labels.float())
        elif labels is not None:
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class PooledEmbedding(Pooled):
    """The pooled hidden states of a bare model, and nothing above them."""

    def make_head(self) -> torch.nn.Module:
        return torch.nn.Identity()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """As `logits` one vector for each row: (rows, features)."""
        return SequenceClassifierOutput(logits=self.vectors(input_ids, attention_mask, **inputs))


def pool(hidden: torch.Tensor, mask: torch.Tensor | None, mode: str) -> torch.Tensor:
    """One vector (rows, features) of the hidden states (rows, T, features); ``mask`` (rows, T or more) is 0 at
    padding, on whichever side it is. Of a row without any token it is zero."""
    if hidden.shape[1] == 0:
        return hidden.new_zeros(len(hidden), hidden.shape[2])
    # A mask that is longer has places of a prefix before the text.
    real = hidden.new_ones(hidden.shape[:2], dtype=torch.bool) if mask is None else mask[:, -hidden.shape[1] :] > 0
    empty = ~real.any(1)[:, None]
    if mode == "mean":
        kept = torch.where(real[..., None], hidden, 0)  # what stands at padding may be no number
        return (kept.sum(1, dtype=torch.float32) / real.sum(1).clamp(min=1)[:, None]).to(hidden.dtype)
    if mode == "max":
        return torch.where(real[..., None], hidden, -torch.inf).amax(1).masked_fill(empty, 0)
    places = torch.arange(hidden.shape[1], device=hidden.device)
    place = torch.where(real, places, -1).amax(1) if mode == "last" else torch.where(real, places, len(places)).amin(1)
    chosen = place.clamp(0, len(places) - 1)
    return hidden[torch.arange(len(hidden), device=hidden.device), chosen].masked_fill(empty, 0)


def pooled_in(model: torch.nn.Module) -> Pooled | None:
    """The model that pools in our own way, in one that a strategy may have wrapped."""
    return next((module for module in model.modules() if isinstance(module, Pooled)), None)


def write_pooling(model: torch.nn.Module, folder: Path) -> None:
    """Say beside a saved model how it pools, where that is ours to say."""
    found = pooled_in(model)
    if found is not None:
        (folder / POOLING).write_text(found.pooling.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_pooling(folder: Path) -> Pooling | None:
    """Read how the model saved in ``folder`` pools; None where that is its architecture's own."""
    path = folder / POOLING
    return Pooling.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None
