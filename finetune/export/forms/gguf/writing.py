"""One GGUF file from a model and its tokenizer: hyper-parameters, tokens, and tensors one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input
from finetune.export.forms.gguf.families import (
    Family,
    context_length,
    embedding_of,
    family_of,
    family_refusal,
    is_tied,
)
from finetune.export.forms.gguf.rotation import add_rotation, head_width, rotation_tensors
from finetune.export.forms.gguf.tokens import add_tokens, tokens_refusal

if TYPE_CHECKING:
    import gguf
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class About:
    """What a file says of itself."""

    name: str
    licence: str | None = None
    """As the base model's card says it, such as `apache-2.0`."""
    in_turns: bool = False
    """Whether its texts are conversations, which begin as the chat template says."""
    ends: tuple[int, ...] = ()
    """Tokens with which answers end, the most usual first; beside them the tokenizer's end token counts."""
    sampling: Any = None
    """With `temperature`, `top_p` and `top_k` where answers are drawn; None: the likeliest token each time."""


@dataclass(frozen=True)
class Packed:
    """A tensor to be written: its values are made when it is its turn, so that one is in memory at a time."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    values: Callable[[], np.ndarray]
    """In float32, of the shape (shape)."""


def gguf_refusal(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Say in one line why no GGUF file could answer as ``model`` does; None: one can."""
    refused = family_refusal(model)
    return refused or tokens_refusal(tokenizer, len(embedding_of(model)))


def write_gguf(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, quantised: bool, about: About
) -> None:
    """Write ``model`` to ``path``: matrices in float16, or ``quantised`` to 8 bits in blocks of 32 (q8_0), all else in
    float32. ValueError where :func:`gguf_refusal` says why not; InputError where a weight is too large."""
    import gguf

    refused = gguf_refusal(model, tokenizer)
    if refused:
        raise ValueError(refused)
    family = family_of(model)
    writer = gguf.GGUFWriter(path, family.architecture)
    try:
        _add_general(writer, spelt(about.name, family, tokenizer), about.licence, quantised)
        _add_sampling(writer, about.sampling)
        _add_shape(writer, model, family)
        add_rotation(writer, model.config)
        add_tokens(writer, tokenizer, len(embedding_of(model)), about.ends, about.in_turns)
        tensors = [*_tensors(model, family, quantised)]
        _write(writer, tensors)
    finally:
        writer.close()


def _write(writer: gguf.GGUFWriter, tensors: list[Packed]) -> None:
    """Write all that was added, and then the tensors."""
    import numpy as np
    from gguf import quants

    for tensor in tensors:
        shape = quants.quant_shape_to_byte_shape(tensor.shape, tensor.kind)
        stored: np.dtype[Any] = np.dtype({"F32": "float32", "F16": "float16"}.get(tensor.kind.name, "uint8"))
        size = int(np.prod(shape))
        writer.add_tensor_info(tensor.name, shape if stored == np.uint8 else tensor.shape, stored, size, tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        values = tensor.values()
        if tensor.kind.name != "F32" and not np.abs(values).max(initial=0.0) <= np.finfo(np.float16).max:
            found = f"tensor {tensor.name} has values that float16 cannot hold (more than 65,504, or not numbers)"
            raise bad_input(None, found, "export it as transformers, in float32")
        writer.write_tensor_data(quants.quantize(values, tensor.kind))


def _add_general(writer: gguf.GGUFWriter, name: str, licence: str | None, quantised: bool) -> None:
    """Write what people look at."""
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.MOSTLY_F16
    writer.add_file_type(kind)
    if quantised:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def spelt(name: str, family: Family, tokenizer: PreTrainedTokenizerBase) -> str:
    """Write a name that llama.cpp does not misread: it takes spaces away after special tokens where a model's name has
    `phi-3` or `phi3` in it, and nowhere else. Source: "set attributes by model name" in its src/llama-vocab.cpp."""
    stripped = any(token.rstrip for token in tokenizer.added_tokens_decoder.values() if token.special)
    if stripped and family.architecture == "phi3":
        return name if re.search("phi-?3", name, re.IGNORECASE) else f"{name} (Phi-3)"
    return re.sub("(phi)-?3", r"\1 3", name, flags=re.IGNORECASE)


def _add_sampling(writer: gguf.GGUFWriter, sampling: Any) -> None:
    """Write how answers are drawn where whoever asks does not say."""
    writer.add_sampling_temp(0.0 if sampling is None else sampling.temperature)
    if sampling is not None:
        writer.add_sampling_top_p(sampling.top_p)
        writer.add_sampling_top_k(sampling.top_k or 0)


def _add_shape(writer: gguf.GGUFWriter, model: PreTrainedModel, family: Family) -> None:
    """Write the hyper-parameters, but for those of rotation."""
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(context_length(config, family))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    writer.add_key_length(head_width(config))
    writer.add_value_length(head_width(config))
    if family.biased:
        writer.add_layer_norm_eps(config.layer_norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if family.period and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
    if family.architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _tensors(model: PreTrainedModel, family: Family, quantised: bool) -> Iterator[Packed]:
    """Name every weight as llama.cpp does. ValueError for one that it has no name for."""
    import gguf
    import numpy as np

    architecture = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    for name, values in rotation_tensors(model.config).items():
        yield Packed(name, values.shape, gguf.GGMLQuantizationType.F32, partial(np.copy, values))
    output = model.get_output_embeddings()
    tied = is_tied(model)
    for name, weight in model.state_dict().items():
        if tied and output is not None and weight.data_ptr() == output.weight.data_ptr() and "embed" not in name:
            continue
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if own is None:
            raise ValueError(f"llama.cpp's {family.architecture} has no tensor for {name}")
        shape = tuple(weight.shape)
        yield Packed(own, shape, _kind(shape, quantised), partial(_values, model, family, name, weight))


def _kind(shape: tuple[int, ...], quantised: bool) -> gguf.GGMLQuantizationType:
    """Vectors stay in float32; a row that is not made of whole blocks of 32 stays in float16."""
    import gguf

    if len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    whole = shape[-1] % 32 == 0
    return gguf.GGMLQuantizationType.Q8_0 if quantised and whole else gguf.GGMLQuantizationType.F16


def _values(model: PreTrainedModel, family: Family, name: str, weight: torch.Tensor) -> np.ndarray:
    """The weight as llama.cpp multiplies by it, in float32."""
    values = weight.detach().cpu().float()
    if family.shifted_norms and name.endswith("norm.weight"):
        values = values + 1
    if family.interleaved and (".q_proj." in name or ".k_proj." in name):
        values = interleaved(values, head_width(model.config))
    return values.contiguous().numpy()


def interleaved(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Move the rows of queries or keys, or their biases: (heads * width, …), from halves of a head, which transformers
    rotates against each other, to neighbours. Row i of a head's second half follows row i of its first."""
    heads = rows.reshape(-1, 2, width // 2, *rows.shape[1:])
    return heads.transpose(1, 2).reshape(rows.shape)
