"""The families of models that GGUF can hold, what each computes in llama.cpp, and what of a model that cannot express.

Source: llama.cpp's src/models/*.cpp, which read these hyper-parameters and compute the rest in one way only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.export.forms.gguf.rotation import head_width, main_rotation, original_length, rotation_refusal

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Family:
    """How one of transformers' model types is written."""

    architecture: str
    """llama.cpp's name for it."""
    activations: tuple[str, ...] = ("silu", "swish")
    """What its feed-forward layers may compute, in transformers' words; llama.cpp computes nothing else."""
    interleaved: bool = False
    """Whether llama.cpp rotates neighbouring dimensions of queries and keys; transformers rotates dimension i with
    i + d/2, so that their rows have to change places."""
    shifted_norms: bool = False
    """Whether transformers' norms multiply by 1 + weight."""
    always_tied: bool = False
    """Whether the output layer is the token embedding, without a choice."""
    windows_ignored: bool = False
    """Whether llama.cpp looks further back than a sliding window: answers agree up to the window's length only."""
    period: int = 0
    """Every so many-th block has full attention, the others a window; 0: all blocks are alike."""
    large: int = 0
    """The number of blocks of the one size whose scores llama.cpp scales by width / heads, not by a head's width."""
    biased: bool = False
    """Whether norms are LayerNorms and every layer, the output too, has biases."""


TANH_GELU = ("gelu_pytorch_tanh", "gelu_new")

FAMILIES = {
    "llama": Family("llama", interleaved=True),
    "mistral": Family("llama", interleaved=True, windows_ignored=True),
    "qwen2": Family("qwen2", windows_ignored=True),
    "qwen3": Family("qwen3", windows_ignored=True),
    "gemma": Family("gemma", TANH_GELU, shifted_norms=True, always_tied=True),
    "gemma2": Family("gemma2", TANH_GELU, shifted_norms=True, always_tied=True, period=2, large=46),
    "gemma3_text": Family("gemma3", TANH_GELU, shifted_norms=True, period=6, large=62),
    "phi": Family("phi2", TANH_GELU, biased=True),
    "phi3": Family("phi3", windows_ignored=True),
}
"""By transformers' `model_type`."""


def family_of(model: PreTrainedModel) -> Family:
    """Give the family of a model that :func:`family_refusal` does not refuse."""
    return FAMILIES[model.config.model_type]


def family_refusal(model: PreTrainedModel) -> str | None:
    """Say in one line why llama.cpp could not compute what ``model`` does; None: it can."""
    config, kind = model.config, type(model).__name__
    if config.model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        return f"GGUF is written for these families: {known}; this model is of family {config.model_type}"
    if not kind.endswith("ForCausalLM"):
        return f"GGUF is written for models that continue text, and this one is a {kind}; use onnx or transformers"
    family = FAMILIES[config.model_type]
    reasons = (_activation, _output, _attention, _windows, _capping)
    said = (reason(model, family) for reason in reasons)
    return next((one for one in said if one), None) or rotation_refusal(config, family.architecture)


def context_length(config: Any, family: Family) -> int:
    """Tokens up to which llama.cpp computes what transformers does."""
    length, window = int(config.max_position_embeddings), getattr(config, "sliding_window", None)
    if main_rotation(config).get("rope_type") == "longrope":
        # With room for more llama.cpp stretches short texts too; transformers goes by the text's own length.
        length = original_length(config)
    return min(length, int(window)) if family.windows_ignored and window else length


def is_tied(model: PreTrainedModel) -> bool:
    """Tell whether the output layer's weights are the token embedding's."""
    output: Any = model.get_output_embeddings()
    return output is None or output.weight.data_ptr() == embedding_of(model).data_ptr()


def embedding_of(model: PreTrainedModel) -> torch.Tensor:
    """The token embedding: (rows, width)."""
    weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return weight


def _activation(model: PreTrainedModel, family: Family) -> str | None:
    config = model.config
    named = getattr(config, "hidden_activation", None) or config.hidden_act
    if named in family.activations:
        return None
    return f"llama.cpp computes {family.activations[0]} in {family.architecture}, and this model {named}"


def _output(model: PreTrainedModel, family: Family) -> str | None:
    if family.always_tied and not is_tied(model):
        return f"llama.cpp's {family.architecture} has no output layer of its own, and this model's is not tied"
    if family.biased and is_tied(model):
        return f"llama.cpp's {family.architecture} needs an output layer of its own, and this model's is tied"
    return None


def _attention(model: PreTrainedModel, family: Family) -> str | None:
    config = model.config
    if family.biased and getattr(config, "qk_layernorm", False):
        return f"llama.cpp's {family.architecture} has no norms of queries and keys, and this model has"
    if (
        family.architecture in ("phi2", "phi3")
        and head_width(config) * config.num_attention_heads != config.hidden_size
    ):
        return f"llama.cpp's {family.architecture} needs heads that are together as wide as the model"
    scalar = getattr(config, "query_pre_attn_scalar", None)
    if scalar is None or not family.period:
        return None
    large = config.num_hidden_layers == family.large
    expected = config.hidden_size // config.num_attention_heads if large else head_width(config)
    if scalar == expected:
        return None
    return f"llama.cpp scales attention by {expected} in {family.architecture}, and this model by {scalar}"


def _windows(model: PreTrainedModel, family: Family) -> str | None:
    kinds = list(getattr(model.config, "layer_types", None) or [])
    if not family.period or not kinds:
        return None
    own = ["full_attention" if (n + 1) % family.period == 0 else "sliding_attention" for n in range(len(kinds))]
    if kinds == own:
        return None
    return f"llama.cpp gives every {family.period}th block of {family.architecture} full attention; this model differs"


def _capping(model: PreTrainedModel, family: Family) -> str | None:
    config = model.config
    caps = [getattr(config, f"{name}_logit_softcapping", None) for name in ("attn", "final")]
    if family.architecture == "gemma2" and None in caps:
        return "llama.cpp's gemma2 caps scores and outputs, and this model does not"
    if family.architecture == "gemma3" and caps != [None, None]:
        return "llama.cpp's gemma3 caps no scores or outputs, and this model does"
    if getattr(config, "use_bidirectional_attention", False):
        return f"llama.cpp's {family.architecture} looks back only, and this model also ahead"
    return None
