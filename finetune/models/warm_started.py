"""An encoder-decoder made of an encoder, twice: once as it is, and once as a decoder that also looks at the first.

Rothe, Narayan & Severyn 2020, "Leveraging Pre-trained Checkpoints for Sequence Generation Tasks", section 2 (their
BERT2BERT): all weights of the decoder begin as the encoder's, but those of the attention between the two, which are
drawn.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from transformers import EncoderDecoderConfig, EncoderDecoderModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

from finetune.core.errors import bad_input

HALVES = ("encoder", "decoder")


class WarmStartedEncoderDecoder(EncoderDecoderModel):
    """transformers' encoder-decoder of two models, which loads from one encoder. What it saves is transformers' own."""

    drawn: ClassVar[tuple[str, ...]] = ("crossattention",)
    """What no encoder has: as `model.new` would name it."""
    # It is not saved, nor looked for.
    _keys_to_ignore_on_load_missing = [r"^encoder\.pooler\."]  # noqa: RUF012

    @classmethod
    def from_pretrained(cls, name: Any, *_: Any, **settings: Any) -> Any:  # type: ignore[override]
        """From an encoder's weights, with its configuration or one that :func:`joined` has made; or, without any, from
        the folder that one of these was saved to."""
        config = settings.pop("config", None)
        if config is None:
            saved = super().from_pretrained(name, **settings)
            without_pooler(saved.encoder)
            return saved
        told, both = settings.pop("output_loading_info", False), joined(config)
        found = {
            half: kind.from_pretrained(name, config=getattr(both, half), output_loading_info=True, **settings)
            for half, kind in zip(HALVES, classes_of(both.encoder), strict=True)
        }
        model = cls._of(both, *(found[half][0] for half in HALVES))
        report = _report({half: told_of for half, (_, told_of) in found.items()})
        return (model.eval(), report) if told else model.eval()

    @classmethod
    def from_config(cls, config: Any, **settings: Any) -> Any:
        """Without pretrained weights."""
        settings.pop("trust_remote_code", None)
        both = joined(config)
        halves = [
            kind._from_config(getattr(both, half), **settings)
            for half, kind in zip(HALVES, classes_of(both.encoder), strict=True)
        ]
        return cls._of(both, *halves)

    @classmethod
    def _of(cls, both: EncoderDecoderConfig, encoder: Any, decoder: Any) -> Any:
        """Make one model of the two, each of which has filled in its own configuration."""
        both.encoder, both.decoder = encoder.config, decoder.config
        return cls(both, without_pooler(encoder), without_pooler(decoder))


def joined(config: Any) -> EncoderDecoderConfig:
    """The configuration of both halves, made of an encoder's: the same twice, with its special tokens."""
    if isinstance(config, EncoderDecoderConfig):
        return config
    encoder, decoder = copy.deepcopy(config), copy.deepcopy(config)
    encoder.is_decoder, encoder.add_cross_attention = False, False
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    tokens = {name: getattr(config, name, None) for name in names}
    both: Any = EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **tokens)
    return both


def classes_of(config: Any) -> tuple[Any, Any]:
    """The classes of the two halves for an encoder's configuration."""
    found = []
    for mapping in (MODEL_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING):
        kind: Any = mapping[type(config)]
        found.append(kind[0] if isinstance(kind, tuple | list) else kind)
    return found[0], found[1]


def check_encoder(config: Any) -> None:
    """Raise :class:`InputError` where no decoder can be made of the encoder that ``config`` is of."""
    fits = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) in MODEL_MAPPING
    if not fits or "encoder_hidden_states" not in inspect.signature(classes_of(config)[1].forward).parameters:
        found = f"is a {config.model_type} model, of which transformers makes no decoder that looks at an encoder"
        raise bad_input("model.source", found, "use an encoder-decoder (T5, BART, ...), or an encoder such as BERT")


def without_pooler(model: Any) -> Any:
    """Take off a pooler, whose output nothing looks at."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def _report(halves: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Join transformers' reports on loading the two halves; of the checkpoint is unused what neither of them uses."""

    def named(half: str, keys: Iterable[Any]) -> set[Any]:
        return {(f"{half}.{key[0]}", *key[1:]) if isinstance(key, tuple) else f"{half}.{key}" for key in keys}

    report: dict[str, Any] = {
        what: set().union(*(named(half, told[what]) for half, told in halves.items()))
        for what in ("missing_keys", "mismatched_keys")
    }
    report["missing_keys"] = {key for key in report["missing_keys"] if ".pooler." not in key}
    return {**report, "unexpected_keys": set.intersection(*(set(told["unexpected_keys"]) for told in halves.values()))}
