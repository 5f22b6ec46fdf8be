"""Frozen layers in 4 or 8 bits, through bitsandbytes (Dettmers et al. 2023, "QLoRA", section 3; Dettmers et al. 2022,
"LLM.int8()", section 3).

bitsandbytes packs weights on their way to the GPU, where they go at once: peft reads packed weights only. The rest of
the model follows them there before training.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch

from finetune.core.errors import bad_input
from finetune.strategies.adapters.places import inside, linear

Bits = Literal["4bit", "8bit"]

DEVICE = "cuda"
"""Where packed weights are: the GPU of this process."""


def check_possible(method: str, prompts: bool) -> None:
    """Raise :class:`InputError` where there is no GPU, no bitsandbytes, or ``method`` cannot be put on such layers."""
    at = "strategy.quantize"
    if not prompts and importlib.util.find_spec(f"peft.tuners.{method}.bnb") is None:
        raise bad_input(at, f"peft cannot put {method} on quantised layers", "use qlora, or leave quantize out")
    if not torch.cuda.is_available():
        advice = "run it where there is one, or leave quantize out (method lora is the same in full precision)"
        raise bad_input(at, "quantised layers need a CUDA GPU, and torch sees none here", advice)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise bad_input(at, "quantised layers need bitsandbytes, which is not installed", "pip install bitsandbytes")


def quantise(model: Any, heads: list[str], bits: Bits) -> None:
    """Put quantised layers in the place of all linear ones but those of ``heads`` and the output layer."""
    for name in linear(model):
        layer = model.get_submodule(name)
        if type(layer) is torch.nn.Linear and not inside(name, heads):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, _packed(layer, bits).to(DEVICE))
    setattr(model, f"is_loaded_in_{bits}", True)  # which peft asks for


def _packed(layer: torch.nn.Linear, bits: Bits) -> torch.nn.Module:
    import bitsandbytes as bnb

    size, biased = (layer.in_features, layer.out_features), layer.bias is not None
    if bits == "4bit":  # NormalFloat, its scales quantised too
        packed = bnb.nn.Linear4bit(*size, bias=biased, compress_statistics=True, quant_type="nf4", device="meta")
        packed.weight = bnb.nn.Params4bit(
            layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=packed
        )
    else:
        packed = bnb.nn.Linear8bitLt(*size, bias=biased, has_fp16_weights=False, threshold=6.0, device="meta")
        packed.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    if biased:
        packed.bias = torch.nn.Parameter(layer.bias.data, requires_grad=False)
    return packed
