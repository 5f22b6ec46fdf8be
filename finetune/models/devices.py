"""Where a model's arithmetic runs, and in which type."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from finetune.errors import bad_input
from finetune.models.arithmetic import Parts, measured_for, parts_for, width_of
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
    """The arithmetic asked for, or bfloat16 where it is faster: on a CPU that is measured."""
    import torch

    return getattr(torch, explain_dtype(options, device)[0])


def explain_dtype(options: ModelOptions, device: torch.device) -> tuple[str, str]:
    """Name of the arithmetic that :func:`choose_dtype` chooses, and why."""
    import torch

    if options.dtype != "auto":
        return options.dtype, "the recipe says so"
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "the GPU has it") if has else ("float32", "the GPU has no bfloat16")
    found = measured_for(width_of(options))
    return found.dtype, found.reason


def choose_parts(options: ModelOptions, dtype: torch.dtype) -> Parts:
    """In parts of how many tokens a CPU trains this model fastest: measured once."""
    return parts_for(width_of(options), dtype)
