"""Where a model's arithmetic runs, and in which type."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from finetune.errors import bad_input
from finetune.models.places import ModelOptions

if TYPE_CHECKING:
    import torch


def choose_device(options: ModelOptions) -> torch.device:
    """The device asked for, or the best there is; under a launcher each process has its own."""
    import torch

    if options.device == "auto":
        return (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            if torch.cuda.is_available()
            else torch.device("cpu")
        )
    advice = "write auto, cpu, cuda or cuda:N"
    try:
        device = torch.device(options.device)
    except RuntimeError:
        raise bad_input("model.device", f"there is no device '{options.device}'", advice) from None
    if device.type not in ("cpu", "cuda"):
        raise bad_input("model.device", f"is '{options.device}', which runs cannot use", advice)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise bad_input("model.device", f"is {options.device}, but torch sees no CUDA device here", "write auto or cpu")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise bad_input("model.device", f"is {options.device}, but there are {count} CUDA devices", "they count from 0")
    return device


def choose_dtype(options: ModelOptions, device: torch.device) -> torch.dtype:
    """The arithmetic asked for, or bfloat16 where the processor multiplies it in hardware."""
    import torch

    if options.dtype != "auto":
        return getattr(torch, options.dtype)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX on x86, BF16 on Arm)."""
    flags = set(_cpu_info("flags", "Features").split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_name() -> str:
    """The processor, as the system names it."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_info(*keys: str) -> str:
    """The first value of one of ``keys`` in Linux's /proc/cpuinfo; empty elsewhere."""
    if platform.system() != "Linux":
        return ""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        pairs = (line.partition(":") for line in info)
        return next((value.strip() for key, _, value in pairs if key.strip() in keys), "")
