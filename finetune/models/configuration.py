"""Facts from a model's configuration, which each family writes in its own way, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input
from finetune.models.heads import Architecture, OwnHead, is_ours

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TASKS = {
    "AutoModelForSequenceClassification": "type classification",
    "AutoModelForCausalLM": "types chat and language",
    "AutoModelForMaskedLM": "type language (masked)",
    "AutoModelForSeq2SeqLM": "type seq2seq",
    "AutoModelForMultipleChoice": "type multiple-choice",
}
"""What transformers' Auto classes are used for here."""

LIMITS = (
    "max_position_embeddings",
    "max_encoder_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "max_target_positions",
)
"""What families call the longest text that they have positions for; none of these where there is no limit."""


def text_config(config: Any) -> Any:
    """The part of a configuration that is about text: all of it, but for models that also see or hear."""
    return getattr(config, "text_config", None) or config


def is_masked(config: Any) -> bool:
    """Tell whether a model was trained to fill in words from both sides; few configurations have `is_decoder`."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)


def has_choice_head(config: Any) -> bool:
    """Tell whether transformers has a multiple choice head for a model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES


def lay_over(config: Any, values: dict[str, Any]) -> Any:
    """``config`` with ``values`` in the parts that know them: those about tokens in each that is about text."""
    text = text_config(config)
    for key, value in values.items():
        wanted = {id(part): part for part in (config, text) if hasattr(part, key)} if key.endswith("_token_id") else {}
        for part in wanted.values() or [text if key.endswith("_token_id") else config]:
            setattr(part, key, value)
    return config


def check_class(config: Any, architecture: Architecture) -> None:
    """Refuse a model of which transformers has no class for a task, with the tasks for which it has one."""
    import transformers

    if isinstance(architecture, OwnHead) or is_ours(architecture):
        return  # a head of our own is put on any model
    if _has(config, getattr(transformers, architecture), architecture):
        return
    others = [task for name, task in TASKS.items() if _has(config, getattr(transformers, name), name)]
    if getattr(config, "is_encoder_decoder", False):  # whose halves cannot be trained alone here
        whole = (TASKS["AutoModelForSequenceClassification"], TASKS["AutoModelForSeq2SeqLM"])
        others = [task for task in others if task in whole]
    raise bad_input(
        "model.source",
        f"is a {config.model_type} model, of which transformers has no {_named(architecture)}",
        f"use another base, or a task that it can do: {', '.join(others)}" if others else "use another base",
    )


def _named(architecture: str) -> str:
    return f"class for task {TASKS[architecture]}" if architecture in TASKS else architecture


def _has(config: Any, auto: Any, architecture: str) -> bool:
    return type(config) in auto._model_mapping or architecture in (getattr(config, "auto_map", None) or {})


def positions_of(model: PreTrainedModel) -> int | None:
    """Find how many tokens a text may have for ``model``, without weights or wrapped as well; None: no known limit.

    A table of positions that has a padding row counts from behind it (RoBERTa and its kin: transformers'
    `create_position_ids_from_input_ids`), so that its last rows are as many fewer.
    """
    said = positions_said(model.config)
    limits = [] if said is None else [said]
    for name, module in model.named_modules():
        padding, table = getattr(module, "padding_idx", None), getattr(module, "weight", None)
        if padding is not None and table is not None and table.ndim == 2 and "pos" in name.rpartition(".")[2]:
            limits.append(len(table) - padding - 1)
    return min(limits, default=None)


def positions_said(config: Any) -> int | None:
    """Find how many tokens a text may have by the model's ``config`` alone; None: it says no limit."""
    return min((limit for half in halves_of(config) for limit in _limits(half)[:1]), default=None)


def _limits(config: Any) -> list[int]:
    return [limit for name in LIMITS if isinstance(limit := getattr(config, name, None), int) and limit > 0]


def halves_of(config: Any) -> list[Any]:
    """The configurations of both halves, of a model that is made of two; else its own, as far as it is about text."""
    halves = [getattr(config, name, None) for name in ("encoder", "decoder")]
    both = config.model_type == "encoder-decoder" and all(half is not None for half in halves)
    return [text_config(half) for half in halves] if both else [text_config(config)]


def rows_said(config: Any) -> int | None:
    """Read the size of the vocabulary from a configuration; None where it gives none."""
    said = [getattr(half, "vocab_size", None) for half in halves_of(config)]
    return min((rows for rows in said if isinstance(rows, int) and rows > 0), default=None)


def rows_of(model: PreTrainedModel) -> int | None:
    """Count the tokens for which the model's table has rows; None where it has no plain table."""
    import torch

    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return len(table.weight) if isinstance(table, torch.nn.Embedding) else None


def width_of(config: Any) -> int:
    """Features of a bare model's last hidden states."""
    text = config.get_text_config()
    return int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)


def dropout_of(config: Any) -> float:
    """Share of a text's vector that is dropped in training, as the family's own classifiers do."""
    names = ("classifier_dropout", "hidden_dropout_prob", "seq_classif_dropout", "dropout")
    found = (getattr(config, name, None) for name in names)
    return next((float(value) for value in found if isinstance(value, int | float)), 0.0)
