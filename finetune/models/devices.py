"""Where a model's arithmetic runs, and in which type."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.core.arithmetic import Parts, measured_for, parts_for
from finetune.core.errors import InputError, bad_input
from finetune.models.places import ModelOptions, locate

if TYPE_CHECKING:
    import torch

WIDTH, NARROWEST, WIDEST, STEP = 512, 128, 1024, 128
"""Hidden size that is measured where the model's is not known, and to which others are brought: the ratio hardly
changes beyond."""

HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")
"""What configurations call it."""


def processor(options: ModelOptions) -> tuple[torch.device, torch.dtype]:
    """The device and the arithmetic of a model."""
    device = choose_device(options)
    return device, choose_dtype(options, device)


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
    if settled := _settled.get(measured_width(options)):
        return settled
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "the GPU has it") if has else ("float32", "the GPU has no bfloat16")
    found = measured_for(measured_width(options))
    return found.dtype, found.reason


Chosen = dict[int, tuple[str, str]]
"""What `auto` stands for, and why, by the :func:`measured_width` of a model."""

_settled: Chosen = {}


def settle(chosen: Chosen) -> None:
    """Let `auto` stand for what is ``chosen`` from now on, and for what is measured of other models. Clocks differ, and
    what computes together, or is averaged, has to compute alike."""
    _settled.clear()
    _settled.update(chosen)


def choose_parts(options: ModelOptions, dtype: torch.dtype) -> Parts:
    """Find in parts of how many tokens a CPU trains this model fastest: measured once."""
    return parts_for(measured_width(options), dtype)


def measured_width(options: ModelOptions) -> int:
    """The model's hidden size where its configuration lies on this machine, brought to one of a few sizes."""
    return min(max(round(_hidden_size(options) / STEP) * STEP, NARROWEST), WIDEST)


def _hidden_size(options: ModelOptions) -> int:
    try:
        place = locate(options.source)
        known = json.loads((Path(place.name) / "config.json").read_text(encoding="utf-8")) if place.local else {}
    except (InputError, OSError, ValueError):  # which loading the model will tell about
        return WIDTH
    return next((known[name] for name in HIDDEN if isinstance(known.get(name), int)), WIDTH)
