"""A bare model under a head that is not transformers' own, which loads, is built and is saved as their classes are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.models.configuration import width_of
from finetune.models.heads import OwnHead


class HeadedModel(PreTrainedModel):
    """A head over the last hidden states of a bare model, which keeps its own name inside.

    Of an encoder-decoder model the encoder is used. Loads and is built as transformers' Auto classes are.
    """

    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    head_name: ClassVar[str] = "head"
    build: ClassVar[Callable[[Any], torch.nn.Module]]
    """Makes the head for a configuration."""

    def __init__(self, bare: PreTrainedModel):
        base: Any = bare.get_encoder() if bare.config.is_encoder_decoder else bare
        super().__init__(bare.config)
        prefix = base.base_model_prefix
        self.base_model_prefix = prefix if prefix.isidentifier() and not hasattr(PreTrainedModel, prefix) else "bare"
        if isinstance(getattr(base, "pooler", None), torch.nn.Module):
            base.pooler = FirstToken()  # its weights would learn nothing, or wait for gradients that never come
        self.add_module(self.base_model_prefix, base)
        self.add_module(self.head_name, self.make_head())
        self.to(base.dtype)

    def make_head(self) -> torch.nn.Module:
        """The head, as it is built."""
        return type(self).build(self.config)

    @property
    def _head(self) -> torch.nn.Module:
        """Find what is above the bare model."""
        return self.get_submodule(self.head_name)

    @classmethod
    def from_pretrained(cls, name: Any, *_: Any, **settings: Any) -> Any:  # type: ignore[override]
        """From a bare model's weights, with a new head; or one of our own from the folder it was saved to."""
        told = settings.pop("output_loading_info", False)
        if not told and name is not None and cls.has_saved(Path(name)):
            return cls._read(Path(name), settings.get("dtype"))
        loader = AutoModel if name is not None else _bare_class(settings["config"])  # from weights that are at hand
        bare, report = loader.from_pretrained(name, output_loading_info=True, **settings)
        every = {id(value): key for key, value in bare.state_dict(keep_vars=True).items()}
        model = cls(bare)
        names = {every[id(value)]: key for key, value in model.state_dict(keep_vars=True).items() if id(value) in every}
        head = {f"{cls.head_name}.{key}" for key, _ in model._head.named_parameters()}
        missing = {names[key] for key in report["missing_keys"] if key in names}
        mismatched = {
            (names[key[0] if isinstance(key, tuple) else key], *key[1:])
            for key in report["mismatched_keys"]
            if (key[0] if isinstance(key, tuple) else key) in names
        }
        report = {**report, "missing_keys": missing | head, "mismatched_keys": mismatched}
        return (model, report) if told else model

    @classmethod
    def from_config(cls, config: Any, **settings: Any) -> Any:
        """Without pretrained weights."""
        return cls(AutoModel.from_config(config, **settings))

    @classmethod
    def has_saved(cls, folder: Path) -> bool:
        """Tell whether ``folder`` holds a model of this class, and not a bare one."""
        return True

    @classmethod
    def _read(cls, folder: Path, dtype: Any) -> Any:
        """A complete model, as :meth:`save_pretrained` has written it."""
        model = cls.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
        weights: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights |= load_file(file)
        model.load_state_dict(weights)
        kind: Any = getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
        return model.to(kind).eval()

    def save_pretrained(self, save_directory: Any, *arguments: Any, **settings: Any) -> None:
        # Under the names that weights have here, where some families' files have others.
        super().save_pretrained(save_directory, *arguments, **{"save_original_format": False, **settings})

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

    def _init_weights(self, module: Any) -> None:
        """Draw a module afresh: the head's linear layers as most families draw theirs, its modules of other classes
        than torch's as their `reset_parameters` says, and all others as the bare model does."""
        own = any(module is each for each in self._head.modules())
        if own and isinstance(module, torch.nn.Linear):
            with torch.no_grad():
                for name, value in module.named_parameters():
                    if not getattr(value, "_is_hf_initialized", False):
                        value.normal_(
                            0, getattr(self.config, "initializer_range", 0.02)
                        ) if name == "weight" else value.zero_()
        elif own and not type(module).__module__.startswith("torch.") and hasattr(module, "reset_parameters"):
            module.reset_parameters()
        else:
            self._bare._init_weights(module)

    def features(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, **inputs: Any
    ) -> torch.Tensor:
        """The last hidden states (rows, T, features) of the bare model."""
        given = inputs["inputs_embeds"] if input_ids is None else input_ids
        if given.shape[1] == 0:  # texts without any token, which most models cannot take
            return torch.zeros(len(given), 0, width_of(self._bare.config), device=given.device)
        return self._bare(input_ids=input_ids, attention_mask=attention_mask, **inputs)[0]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """As `logits` what the head makes of the hidden states."""
        hidden = self.features(input_ids, attention_mask, **inputs)
        mask = hidden.new_ones(hidden.shape[:2]) if attention_mask is None else attention_mask
        # A mask that is longer has places of a prefix before the text.
        return SequenceClassifierOutput(logits=self._head(hidden, mask[:, mask.shape[1] - hidden.shape[1] :]))


class FirstToken(torch.nn.Module):
    """Stands in for a pooler whose output nobody reads."""

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden[:, 0] if hidden.ndim == 3 else hidden


def headed(own: OwnHead) -> type[HeadedModel]:
    """The class of a bare model under a task's own head."""
    return type(own.name, (HeadedModel,), {"build": staticmethod(own.build)})


def _bare_class(config: Any) -> Any:
    """The class of the bare model that a configuration is of."""
    with torch.device("meta"):
        return type(AutoModel.from_config(config))
