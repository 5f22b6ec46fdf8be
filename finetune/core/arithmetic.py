"""Which arithmetic a CPU is fastest in, and in parts of how many tokens: found out by measuring it once, and remembered
for this machine.

What a processor says of itself does not tell: bfloat16 that is emulated may be seventeen times slower than float32, and
some processors that have instructions for it gain nothing by them.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from finetune.core.digests import text_digest
from finetune.core.errors import Damaged
from finetune.core.paths import cache_folder
from finetune.core.run_dir import read_json, write_json

if TYPE_CHECKING:
    import torch

TOKENS = 128
"""Rows of the products that are measured: a small batch."""

TRIES = 3
"""Of each, of which the fastest counts."""

PATIENCE = 2.0
"""Seconds that trying the parts once may take."""

SLOW = 5.0
"""How many times as slow bfloat16 may be at its first pass to be tried again."""

GAIN = 1.2
"""How many times as fast bfloat16, or another size of parts, has to be: less is within what measuring again may come
to."""

PARTS = (1536, 768, 3072)
"""Tokens in a part that are tried; the first is kept unless another is clearly faster."""

BFLOAT16_UNITS = {"amx_bf16": "AMX bf16", "avx512_bf16": "AVX-512 bf16", "bf16": "Arm bf16"}
"""By the system's flag, what multiplies bfloat16 in hardware."""


@dataclass(frozen=True)
class Measured:
    """Seconds that a linear layer takes, forward and backward, in each dtype."""

    float32: float
    bfloat16: float

    @property
    def dtype(self) -> str:
        """Choose the arithmetic to use."""
        return "bfloat16" if self.float32 > GAIN * self.bfloat16 else "float32"

    @property
    def reason(self) -> str:
        """Why, in words."""
        ratio = self.float32 / self.bfloat16
        measured = f"{ratio:.1f}x as fast as" if ratio >= 1 else f"{1 / ratio:.1f}x as slow as"
        return f"bfloat16 measured {measured} float32"


@dataclass(frozen=True)
class Parts:
    """Seconds that a feed-forward block takes for one token, forward and backward, by how many tokens a part has."""

    seconds: dict[int, float]

    @property
    def tokens(self) -> int:
        """Choose the best number of tokens in a part."""
        usual = PARTS[0]
        best = min(self.seconds, key=lambda tokens: self.seconds[tokens])
        return best if self.seconds[usual] > GAIN * self.seconds[best] else usual

    @property
    def reason(self) -> str:
        """Why, in words."""
        if not any(self.seconds.values()):
            return "measuring others would take long"
        spent = ", ".join(f"{self.seconds[tokens] * 1e6:.0f} µs in parts of {tokens:,}" for tokens in PARTS)
        return f"a token takes {spent}"


@cache
def measured_for(width: int) -> Measured:
    """Measure a linear layer of hidden size ``width`` on this machine, or recall it where the threads were as many."""
    known = _remembered([width, TOKENS], ["float32", "bfloat16"], lambda: asdict(_measure(width)))
    return Measured(**known)


@cache
def parts_for(width: int, dtype: torch.dtype) -> Parts:
    """Measure parts of several sizes at hidden size ``width`` on this machine, or recall what was measured before."""
    names = [str(tokens) for tokens in PARTS]
    known = _remembered([width, str(dtype)], names, lambda: dict(zip(names, _measure_parts(width, dtype), strict=True)))
    return Parts({int(tokens): seconds for tokens, seconds in known.items()})


def _remembered(
    asked: Sequence[Any], names: Sequence[str], measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Give seconds by ``names``, measured once on this machine; again where they cannot be read or written."""
    import torch

    about = [cpu_name(), arithmetic_name(), torch.__version__, torch.get_num_threads(), *asked, *names]
    place = cache_folder()
    path = place and place / "arithmetic" / f"{text_digest(json.dumps(about))}.json"
    if path and path.exists():
        with suppress(OSError, ValueError, TypeError, KeyError, Damaged):
            known = read_json(path)
            return {name: float(known[name]) for name in names}
    found = measure()
    if path:
        with suppress(OSError):
            write_json(path, found)
    return found


def _measure(width: int) -> Measured:
    import torch

    layer, rows = _layer(width, 4 * width), _rows(TOKENS, width)
    seconds = {dtype: [_seconds(layer, rows, dtype)] for dtype in (torch.float32, torch.bfloat16)}
    full, half = seconds.values()
    for _ in range(TRIES):  # in turn, so that what else the machine does meets both
        full.append(_seconds(layer, rows, torch.float32))
        if half[0] < SLOW * full[0]:
            half.append(_seconds(layer, rows, torch.bfloat16))
    return Measured(min(full[1:]), min(half[1:] or half))


def _measure_parts(width: int, dtype: torch.dtype) -> list[float]:
    """Time a token in parts of each size of :data:`PARTS`, seconds; zero, as if it made no difference, where even a few
    tokens take long."""
    import torch

    few = getattr(measured_for(width), str(dtype).removeprefix("torch."))
    if 2 * few / TOKENS * sum(PARTS) > PATIENCE:
        return [0.0 for _ in PARTS]
    block = torch.nn.Sequential(_layer(width, 4 * width), torch.nn.GELU(), _layer(4 * width, width))
    taken: dict[int, list[float]] = {tokens: [] for tokens in PARTS}
    for _ in range(TRIES):  # in turn, so that what else the machine does meets all of them
        for tokens, seconds in taken.items():
            seconds.append(_seconds(block, _rows(tokens, width), dtype) / tokens)
    return [min(seconds) for seconds in taken.values()]


def _layer(inputs: int, outputs: int) -> torch.nn.Linear:
    """A linear layer of random weights, which draw nothing from a run's streams."""
    import torch

    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


def _rows(tokens: int, width: int) -> torch.Tensor:
    import torch

    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(1)).requires_grad_()


def _seconds(layer: torch.nn.Module, rows: torch.Tensor, dtype: torch.dtype) -> float:
    """One pass as training takes it: weights in float32, products in ``dtype``."""
    import torch

    begun = time.perf_counter()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        product = layer(rows)
    product.float().square().mean().backward()
    return time.perf_counter() - begun


def arithmetic_name() -> str:
    """The CPU's vector instructions that torch uses, and whether it has units for bfloat16."""
    import torch

    flags = set(_cpu_info("flags", "Features").split())
    units = [name for flag, name in BFLOAT16_UNITS.items() if flag in flags]
    return f"{torch.backends.cpu.get_cpu_capability()}, {', '.join(units) or 'no bf16 units'}"


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
