"""A classifier over the bare model: its last hidden states pooled into one vector, and one linear layer.

What transformers' own classes do instead differs with the family: a tanh layer over the first token, the last token
alone, two layers, the decoder's end token. Mean pooling for sentence vectors is from Reimers & Gurevych 2019,
"Sentence-BERT", section 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.models.pooling import Pooling

HEAD = "classification_head"

POOLING = "pooling.json"
"""File beside a saved model that says how it pools."""


class PooledForSequenceClassification(PreTrainedModel):
    """One linear layer over the pooled hidden states of a bare model, which keeps its own name inside.

    Of an encoder-decoder model the encoder is used. Loads and is built as transformers' Auto classes are.
    """

    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, bare: PreTrainedModel, pooling: Pooling | None = None):
        base: Any = bare.get_encoder() if bare.config.is_encoder_decoder else bare
        super().__init__(bare.config)
        prefix = base.base_model_prefix
        self.base_model_prefix = prefix if prefix.isidentifier() and not hasattr(PreTrainedModel, prefix) else "bare"
        if isinstance(getattr(base, "pooler", None), torch.nn.Module):
            base.pooler = FirstToken()  # its weights would learn nothing, or wait for gradients that never come
        self.pooling = pooling or Pooling(mode="auto")
        self.add_module(self.base_model_prefix, base)
        self.dropout = torch.nn.Dropout(_dropout(base.config))
        self.add_module(HEAD, torch.nn.Linear(_width(base.config), int(bare.config.num_labels or 0)))
        self.to(base.dtype)

    @classmethod
    def from_pretrained(cls, name: Any, *_: Any, **settings: Any) -> Any:  # type: ignore[override]
        """From a bare model's weights, with a new head; or one of our own from the folder it was saved to."""
        told = settings.pop("output_loading_info", False)
        if not told and name is not None and (Path(name) / POOLING).exists():
            return cls._read(Path(name), settings.get("dtype"))
        loader = AutoModel if name is not None else _bare_class(settings["config"])  # from weights that are at hand
        bare, report = loader.from_pretrained(name, output_loading_info=True, **settings)
        every = {id(value): key for key, value in bare.state_dict(keep_vars=True).items()}
        model = cls(bare)
        names = {every[id(value)]: key for key, value in model.state_dict(keep_vars=True).items() if id(value) in every}
        head = {f"{HEAD}.{kind}" for kind in ("weight", "bias")}
        missing = {names[key] for key in report["missing_keys"] if key in names}
        mismatched = {
            (names[key[0] if isinstance(key, tuple) else key], *key[1:])
            for key in report["mismatched_keys"]
            if (key[0] if isinstance(key, tuple) else key) in names
        }
        report = {**report, "missing_keys": missing | head, "mismatched_keys": mismatched}
        return (model, report) if told else model

    @classmethod
    def from_config(cls, config: Any, **settings: Any) -> PooledForSequenceClassification:
        """Without pretrained weights."""
        return cls(AutoModel.from_config(config, **settings))

    @classmethod
    def _read(cls, folder: Path, dtype: Any) -> PooledForSequenceClassification:
        """A complete model, as :meth:`save_pretrained` has written it."""
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model = cls.from_config(config)
        model.pooling = read_pooling(folder) or model.pooling
        weights: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights |= load_file(file)
        model.load_state_dict(weights)
        kind: Any = getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
        return model.to(kind).eval()

    def save_pretrained(self, save_directory: Any, *arguments: Any, **settings: Any) -> None:
        # Under the names that weights have here, where some families' files have others.
        super().save_pretrained(save_directory, *arguments, **{"save_original_format": False, **settings})
        write_pooling(self, Path(save_directory))

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True  # it is the bare model's own affair, which has been asked already

    @property
    def _bare(self) -> Any:
        return self.base_model

    def get_input_embeddings(self) -> torch.nn.Module:
        return self._bare.get_input_embeddings()

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        self._bare.set_input_embeddings(value)

    def _init_weights(self, module: torch.nn.Module) -> None:
        if module is not getattr(self, HEAD):
            return self._bare._init_weights(module)
        with torch.no_grad():
            for name, value in module.named_parameters():
                if not getattr(value, "_is_hf_initialized", False):
                    value.normal_(
                        0, getattr(self.config, "initializer_range", 0.02)
                    ) if name == "weight" else value.zero_()

    def features(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, **inputs: Any
    ) -> torch.Tensor:
        """The last hidden states (rows, T, features) of the bare model."""
        given = inputs["inputs_embeds"] if input_ids is None else input_ids
        if given.shape[1] == 0:  # texts without any token, which most models cannot take
            return torch.zeros(len(given), 0, getattr(self, HEAD).in_features, device=given.device)
        return self._bare(input_ids=input_ids, attention_mask=attention_mask, **inputs)[0]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Logits (rows, labels), and with ``labels`` (rows,) their mean cross-entropy."""
        hidden = self.features(input_ids, attention_mask, **inputs)
        vectors = pool(hidden, attention_mask, "mean" if self.pooling.mode == "auto" else self.pooling.mode)
        vectors = normalize(vectors, dim=-1) if self.pooling.normalise else vectors
        logits = getattr(self, HEAD)(self.dropout(vectors))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class FirstToken(torch.nn.Module):
    """Stands in for a pooler whose output nobody reads."""

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden[:, 0] if hidden.ndim == 3 else hidden


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


def pooled_in(model: torch.nn.Module) -> PooledForSequenceClassification | None:
    """The classifier with a head of our own in a model that a strategy may have wrapped."""
    return next((module for module in model.modules() if isinstance(module, PooledForSequenceClassification)), None)


def write_pooling(model: torch.nn.Module, folder: Path) -> None:
    """Say beside a saved model how it pools, where that is ours to say."""
    found = pooled_in(model)
    if found is not None:
        (folder / POOLING).write_text(found.pooling.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_pooling(folder: Path) -> Pooling | None:
    """How the model saved in ``folder`` pools; None where that is its architecture's own."""
    path = folder / POOLING
    return Pooling.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def _bare_class(config: Any) -> Any:
    """The class of the bare model that a configuration is of."""
    with torch.device("meta"):
        return type(AutoModel.from_config(config))


def _width(config: Any) -> int:
    """Features of a bare model's last hidden states."""
    text = config.get_text_config()
    return int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)


def _dropout(config: Any) -> float:
    """Share of the vector that is dropped in training, as the family's own classifiers do."""
    names = ("classifier_dropout", "hidden_dropout_prob", "seq_classif_dropout", "dropout")
    found = (getattr(config, name, None) for name in names)
    return next((float(value) for value in found if isinstance(value, int | float)), 0.0)
