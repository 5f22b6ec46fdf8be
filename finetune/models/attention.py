"""Kernels of attention: how transformers calls them, and which of them a model and a device can have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.core.compute import Attention
from finetune.core.errors import bad_input

if TYPE_CHECKING:
    import torch

KERNELS = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2", "flex": "flex_attention"}
"""By our name, transformers' own."""

SUPPORT = {"sdpa": "_supports_sdpa", "flash": "_supports_flash_attn", "flex": "_supports_flex_attn"}
"""What model classes say of each; all of them can write attention out."""

AT, ADVICE = "compute.attention", "write sdpa or eager, or leave it out"


def attention_config(attention: Attention) -> dict[str, Any]:
    """Give what is laid over a model's configuration for this kernel; nothing where transformers chooses."""
    return {} if attention == "auto" else {"_attn_implementation": KERNELS[attention]}


def is_narrow(model: Any) -> bool:
    """Tell whether a model's kernel of attention is for arithmetic in 16 bits, or reads masks in a form of its own."""
    return getattr(model.config, "_attn_implementation", None) in (KERNELS["flash"], KERNELS["flex"])


def check_attention(model: torch.nn.Module, attention: Attention, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a kernel that this ``model`` (it may be without weights), device or arithmetic cannot have. Raises
    InputError with the reason."""
    import torch
    from transformers import PreTrainedModel
    from transformers.utils import is_flash_attn_2_available

    if flag := SUPPORT.get(attention):
        for part in model.modules():
            if isinstance(part, PreTrainedModel) and not getattr(part, flag, False):
                found = f"is {attention}, which transformers' {type(part).__name__} has not"
                raise bad_input(AT, found, "write eager, or leave it out")
    if attention not in ("flash", "flex"):
        return
    if device.type != "cuda":
        found = f"is {attention}, whose kernels are for GPUs, and this runs on {device.type}"
        raise bad_input(AT, found, ADVICE)
    if attention == "flash" and not is_flash_attn_2_available():
        raise bad_input(AT, "is flash, and the package flash-attn is not installed", f"install it; or {ADVICE}")
    if attention == "flash" and dtype == torch.float32:
        found = "is flash, which has no float32 kernels"
        raise bad_input(AT, found, f"write model.dtype: bfloat16; or {ADVICE}")
