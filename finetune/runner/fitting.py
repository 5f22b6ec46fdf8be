"""Whether weights, gradients and what the optimizer remembers fit a device: told before any weight is loaded."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from finetune.core.errors import Problem
from finetune.core.examples import Example, lengths_of
from finetune.runner.arithmetic import SHARDING
from finetune.train.kernels import LONGEST
from finetune.train.rules import RULES

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from finetune.recipe import Recipe
    from finetune.runner.build import Built

REMEMBERED = {"adamw": 2, "schedule-free": 2, "prodigy": 4, "lion": 1, "muon": 1, "adafactor": 0}
"""Numbers that each optimizer keeps for a weight; Adafactor's, for each row and column of a matrix, hardly count."""

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "8bit": 1.0, "4bit": 0.5}

PACKED = ("8bit", "4bit")

ROOM, FEWEST = 0.75e9, 256
"""Bytes that the activations of a part may come to on a CPU, and the tokens that it has even where they are more."""

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container's limit stands."""


@dataclass(frozen=True)
class Need:
    """What a run cannot do without, on each of its devices; activations and batches come to it."""

    frozen: int
    """Weights that do not learn."""
    learnt: int
    """Weights that learn."""
    stored: str
    """Type of frozen ones."""
    weights: str
    """Type of those that learn, and of their gradients."""
    states: str
    remembered: int
    compensated: bool = False
    offloaded: bool = False
    """True where what the optimizer remembers is in another memory."""
    processes: int = 1
    """Over which all of it is split."""

    @property
    def bytes(self) -> float:
        """Compute the bytes on each device."""
        kept = self.remembered * BYTES[self.states] + 2 * self.compensated
        one = 2 * BYTES[self.weights] + (0 if self.offloaded else kept)
        return (self.frozen * BYTES[self.stored] + self.learnt * one) / self.processes


def need_of(recipe: Recipe, built: Built, dtype: torch.dtype, processes: int = 1) -> Need:
    """Find what training ``built``, which may be without weights, needs in the arithmetic of ``dtype``; it may be split
    over so many ``processes``."""
    parameters = list(built.model.parameters())
    learnt = 0 if built.strategy.solves else sum(each.numel() for each in parameters if each.requires_grad)
    compute, kind = recipe.compute, str(dtype).removeprefix("torch.")
    quantised = (getattr(recipe.strategy, "quantize", None) or "4bit") if built.strategy.quantizes else kind
    return Need(
        sum(each.numel() for each in parameters) - learnt,
        learnt,
        quantised,
        compute.weights,
        compute.states,
        REMEMBERED[recipe.train.optimizer],
        compute.weights == "bfloat16" and compute.rounding == "compensated",
        compute.offload,
        processes if compute.shard else 1,
    )


def shortage(recipe: Recipe, built: Built, device: torch.device, dtype: torch.dtype) -> Problem | None:
    """Tell what is wrong where a run needs more memory than its device has, and what would fit; None: nothing is."""
    room = room_of(device)
    if room is None:
        return None
    need = need_of(recipe, built, dtype, int(os.environ.get("WORLD_SIZE") or 1))
    if device.type == "cpu":  # one machine's memory is shared by all its processes
        room //= int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if need.bytes <= room:
        return None
    what = "its weights" if not need.learnt else f"weights, gradients and what {recipe.train.optimizer} remembers"
    found = f"needs at least {_gigabytes(need.bytes)} for {what}, and {device.type} has {_gigabytes(room)} here"
    others = _others(need, recipe.train.optimizer, room, device)
    fitting = [f"{said} ({_gigabytes(other.bytes)})" for said, other in others if other.bytes <= room]
    return Problem(found, f"would fit: {'; '.join(fitting)}" if fitting else "choose a smaller model", "model.source")


def _others(need: Need, optimizer: str, room: int, device: torch.device) -> Iterator[tuple[str, Need]]:
    """Give other ways to train, and what each needs: from what changes least to what changes most."""
    if need.learnt and need.processes == 1 and optimizer in RULES:
        if need.states == "float32" and need.remembered:
            yield "compute.states: 8bit", replace(need, states="8bit")
        if not need.offloaded and device.type == "cuda":
            yield "compute.offload: true", replace(need, offloaded=True)
        if need.weights == "float32" and need.stored == "bfloat16":
            yield "compute.weights: bfloat16 with states: 8bit", replace(need, weights="bfloat16", states="8bit")
    if need.learnt and optimizer in SHARDING and need.stored not in PACKED:
        whole = replace(need, processes=1, weights="float32", states="float32", compensated=False, offloaded=False)
        count = math.ceil(whole.bytes / room)
        yield f"compute.shard: true over {count} such devices", replace(whole, processes=count)
    adapter = replace(need, frozen=need.frozen + need.learnt, learnt=0, processes=1)
    if need.learnt > need.frozen:
        yield "strategy: {type: adapter, method: lora}, and a little more", adapter
    if need.stored not in PACKED and device.type == "cuda":
        yield "strategy: {type: adapter, method: qlora}, and a little more", replace(adapter, stored="4bit")


def room_of(device: torch.device) -> int | None:
    """Find the bytes of memory that a device has, in a container those that it may use; None: not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu" or "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for place in map(Path, LIMITS):
        if place.exists() and (said := place.read_text(encoding="ascii").strip()).isdecimal():
            found.append(int(said))
    return min(found)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e9:,.0f} GB"


def tokens_that_fit(recipe: Recipe, config: PretrainedConfig, examples: Sequence[Example], dtype: torch.dtype) -> int:
    """Count the tokens of a part whose activations come to :data:`ROOM`, but :data:`FEWEST` at least: a large model is
    about as fast with few of them at once as with many, and takes memory for all of them."""
    if recipe.compute.gradient_checkpointing:
        return sys.maxsize
    lengths = lengths_of(examples)
    typical = float((lengths**2).sum() / max(lengths.sum(), 1))  # of the example that a token is in
    each = activation_bytes(config, typical, dtype)
    return max(FEWEST, int(ROOM / each)) if each else sys.maxsize


def activation_bytes(config: PretrainedConfig, length: float, dtype: torch.dtype) -> float:
    """Estimate the bytes that a token leaves in all blocks for the backward pass, where examples have ``length``
    tokens: in 16 bits, h (34 + 5 a s / h) of each block (Korthikanti et al. 2022, "Reducing Activation Recomputation in
    Large Transformer Models", section 4.1), without the second part where attention's weights are not kept. Zero where
    the configuration does not say how large the model is."""
    text = config.get_text_config()
    width, heads = getattr(text, "hidden_size", None), getattr(text, "num_attention_heads", None) or 0
    blocks = getattr(text, "num_hidden_layers", None)
    if not isinstance(width, int) or not isinstance(blocks, int):
        return 0.0
    weights = 5 * heads * length if dtype.itemsize == 2 and length <= LONGEST else 0
    return blocks * (34 * width + weights) * dtype.itemsize / 2
