"""Weights, and what an optimizer remembers of them, in fewer bits than 32: how they are read, and written again.

Shapes: values are (R, ...) float32; what is kept of them is of the same shape, or, in 8 bits, codes of the same shape
with a scale for each block of each run's own values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch

from finetune.core.compute import ComputeOptions

BLOCK, FEWEST = 256, 4096
"""Values that share a scale; and the values of a run under which all are kept in float32."""

EXPONENTS = 7
"""Powers of ten that a code can have."""

LOOKED_AT = 18
"""Bits of a number, of which 9 are for sign and exponent, by which its code is found."""

CODES, SCALES = "codes", "scales"
"""What is added to a name for the two parts of what is kept in 8 bits."""

Bits = Callable[[torch.Size], torch.Tensor]
"""Draws even numbers from 0 to 65,534, int32 of a shape (R, ...): each run's from its own stream."""


def round_at_random(values: torch.Tensor, bits: Bits) -> torch.Tensor:
    """Round float32 to bfloat16, up or down with the chance that leaves the mean as it is: what the lower half of the
    number has, plus a random number, carries into the upper half or does not."""
    words = values.contiguous().view(torch.int32) + bits(values.shape)
    words = words & -65536
    return torch.where(values.isfinite(), words.view(torch.float32), values).to(torch.bfloat16)


@lru_cache
def code_book(signed: bool) -> tuple[float, ...]:
    """List the 256 values between -1 (or 0) and 1 that 8 bits stand for, ascending: dense near zero, where an exponent
    takes few bits and leaves few for the fraction (Dettmers et al. 2022, section 2.1, "dynamic tree quantization")."""
    found = [0.0, 1.0]
    for exponent in range(EXPONENTS):
        fractions = 2**exponent if signed else 2 ** (exponent + 1)  # the larger the exponent, the more bits are left
        edges = [0.1 + 0.9 * place / fractions for place in range(fractions + 1)]
        middles = [10.0 ** (exponent - EXPONENTS + 1) * (low + high) / 2 for low, high in pairwise(edges)]
        found += middles + ([-middle for middle in middles] if signed else [])
    return tuple(sorted(found))


@lru_cache
def code_of(signed: bool, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the code of the nearest value for every number that begins with the same :data:`LOOKED_AT` bits, and the
    values by their codes: looked up, a number takes a twentieth of the time of a search."""
    book = torch.tensor(code_book(signed))
    middles = (torch.arange(1 << LOOKED_AT) << (32 - LOOKED_AT)) + (1 << (31 - LOOKED_AT))
    numbers = middles.to(torch.int32).view(torch.float32).nan_to_num(0.0)
    codes = torch.bucketize(numbers, (book[1:] + book[:-1]) / 2).to(torch.uint8)
    return codes.to(device), book.to(device)


def _blocks(rows: torch.Tensor) -> torch.Tensor:
    """Divide rows (R, values) into blocks, (R, blocks, BLOCK), the last filled up with zeros."""
    missing = -rows.shape[1] % BLOCK
    return (torch.nn.functional.pad(rows, (0, missing)) if missing else rows).unflatten(1, (-1, BLOCK))


def encode(values: torch.Tensor, signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep ``values`` (R, ...) in 8 bits: codes of the same shape, and scales (R, blocks)."""
    rows = values.reshape(len(values), -1)
    blocks = _blocks(rows)
    scales = blocks.abs().amax(-1)
    shares = (blocks / scales.clamp(min=torch.finfo(torch.float32).tiny)[..., None]).flatten()
    places = (shares.view(torch.int32) >> (32 - LOOKED_AT)) & ((1 << LOOKED_AT) - 1)
    codes = code_of(signed, values.device)[0].index_select(0, places)
    return codes.view(len(rows), -1)[:, : rows.shape[1]].reshape(values.shape), scales


def decode(codes: torch.Tensor, scales: torch.Tensor, signed: bool) -> torch.Tensor:
    """Give the values back, float32 of the codes' shape (R, ...)."""
    found = code_of(signed, codes.device)[1].index_select(0, codes.flatten().int()).view(len(codes), -1)
    return (_blocks(found) * scales[..., None]).flatten(1)[:, : found.shape[1]].reshape(codes.shape)


@dataclass(frozen=True)
class Storage:
    """How a parameter and what is remembered of it are kept between steps."""

    compute: ComputeOptions

    def read(self, weights: torch.Tensor, kept: dict[str, torch.Tensor]) -> torch.Tensor:
        """Give ``weights`` (R, ...) in float32, with what rounding them had lost."""
        return weights.float() if "lost" not in kept else weights.float() + kept["lost"].float()

    def write(self, weights: torch.Tensor, new: torch.Tensor, bits: Bits) -> dict[str, torch.Tensor]:
        """Put ``new`` values in place of ``weights``, and give what is to be kept beside them."""
        if weights.dtype == torch.float32:
            weights.copy_(new)
            return {}
        if self.compute.rounding == "stochastic":
            weights.copy_(round_at_random(new, bits))
            return {}
        weights.copy_(new.to(weights.dtype))
        return {"lost": (new - weights.float()).to(weights.dtype)} if self.compute.rounding == "compensated" else {}

    def recall(self, kept: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Give what a rule had remembered, in float32, by name."""
        found = {}
        for name, value in kept.items():
            if name.endswith(CODES):
                base = name.removesuffix(CODES)
                found[base] = decode(value, kept[base + SCALES], _signed(base))
            elif not name.endswith(SCALES) and name != "lost":
                found[name] = value.float()
        return found

    def remember(self, memory: dict[str, torch.Tensor], bits: Bits, size: int) -> dict[str, torch.Tensor]:
        """Give what is to be kept until the next step of a rule's ``memory`` (R, ...) of a parameter, or a part of one,
        that has ``size`` weights."""
        few = size < FEWEST
        return dict(part for name, value in memory.items() for part in self._kept(name, value, bits, few))

    def _kept(self, name: str, value: torch.Tensor, bits: Bits, few: bool) -> Iterator[tuple[str, torch.Tensor]]:
        if self.compute.states == "float32" or few:
            yield name, value
        elif self.compute.states == "bfloat16":
            # To the nearest, a mean of squares would stand still: its steps are a thousandth of it.
            yield name, round_at_random(value, bits)
        else:
            codes, scales = encode(value, _signed(name))
            yield name + CODES, codes
            yield name + SCALES, scales


def _signed(name: str) -> bool:
    """Tell whether what is remembered under ``name`` can be negative: squares cannot."""
    return name in ("exp_avg", "momentum")
