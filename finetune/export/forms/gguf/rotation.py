"""Rotary positions (RoPE) as GGUF writes them: base, dimensions, and how they are stretched to longer texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gguf
    import numpy as np

STRETCHED = {
    "llama": ("default", "linear", "yarn", "llama3"),
    "qwen2": ("default", "linear", "yarn"),
    "qwen3": ("default", "linear", "yarn"),
    "gemma": ("default", "linear"),
    "gemma2": ("default", "linear"),
    "gemma3": ("default", "linear"),
    "phi2": ("default",),
    "phi3": ("default", "longrope"),
}
"""The ways of stretching, in transformers' words, that llama.cpp computes alike, by its architectures."""

YARN_DEFAULTS = {"beta_fast": 32, "beta_slow": 1, "truncate": True}
"""What YaRN is computed with where a file says nothing; ours says nothing."""


def rotation_refusal(config: Any, architecture: str) -> str | None:
    """Say in one line why llama.cpp could not rotate as this model does; None: it can."""
    for parameters in (main_rotation(config), local_rotation(config)):
        kind = parameters.get("rope_type", "default")
        if kind not in STRETCHED[architecture]:
            known = ", ".join(STRETCHED[architecture])
            return f"llama.cpp's {architecture} knows the rotations {known}, and this model has {kind}"
        odd = [name for name in ("mscale", "mscale_all_dim") if parameters.get(name)]
        odd += [name for name, usual in YARN_DEFAULTS.items() if parameters.get(name) not in (None, usual)]
        if kind == "yarn" and odd:
            return f"llama.cpp's YaRN has another {odd[0]} than this model"
    if local_rotation(config).get("rope_type", "default") != "default":
        return "llama.cpp stretches the positions of full attention only, and this model also those in windows"
    if rotated_dimensions(config) % 2:
        return f"llama.cpp rotates pairs of dimensions, and this model {rotated_dimensions(config)}"
    return None


def main_rotation(config: Any) -> dict[str, Any]:
    """The parameters of attention, or of full attention where there is another for windows."""
    parameters = dict(config.rope_parameters)
    return dict(parameters["full_attention"]) if "full_attention" in parameters else parameters


def local_rotation(config: Any) -> dict[str, Any]:
    """The parameters of attention in windows, where they are others; otherwise none."""
    return dict(config.rope_parameters.get("sliding_attention") or {})


def head_width(config: Any) -> int:
    """Dimensions of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rotated_dimensions(config: Any) -> int:
    """How many of a head's dimensions are rotated; the others stay as they are."""
    return int(head_width(config) * main_rotation(config).get("partial_rotary_factor", 1.0))


def add_rotation(writer: gguf.GGUFWriter, config: Any) -> None:
    """Write the hyper-parameters of rotation."""
    import gguf

    own, local = main_rotation(config), local_rotation(config)
    writer.add_rope_dimension_count(rotated_dimensions(config))
    writer.add_rope_freq_base(float(own["rope_theta"]))
    if local:
        writer.add_rope_freq_base_swa(float(local["rope_theta"]))
    kind = own.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR if kind == "linear" else gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(own["factor"]))
    if kind in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(original_length(config))
    if kind == "yarn" and own.get("attention_factor"):
        # llama.cpp multiplies by its own usual factor (YaRN, equation 22) what the file says.
        import math

        writer.add_rope_scaling_attn_factors(own["attention_factor"] / (1 + 0.1 * math.log(own["factor"])))
    if kind == "longrope":
        writer.add_rope_scaling_attn_factors(_attention_factor(config))


def rotation_tensors(config: Any) -> dict[str, np.ndarray]:
    """By how much each pair of dimensions turns more slowly than without stretching, as tensors (d / 2,) by name."""
    import numpy as np

    own = main_rotation(config)
    kind = own.get("rope_type", "default")
    if kind == "llama3":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, None)
        size = rotated_dimensions(config)
        usual = own["rope_theta"] ** -(np.arange(0, size, 2, dtype=np.float64) / size)
        return {"rope_freqs.weight": (usual / slowed.double().numpy()).astype(np.float32)}
    if kind == "longrope":
        names = {"rope_factors_long.weight": "long_factor", "rope_factors_short.weight": "short_factor"}
        return {name: np.asarray(own[key], dtype=np.float32) for name, key in names.items()}
    return {}


def original_length(config: Any) -> int:
    """The length of texts in pretraining, before stretching."""
    own = main_rotation(config).get("original_max_position_embeddings")
    return int(own or getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings)


def _attention_factor(config: Any) -> float:
    """What transformers multiplies the rotated queries and keys by."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    _, factor = ROPE_INIT_FUNCTIONS["longrope"](config, None, seq_len=1)
    return float(factor)
