"""Dropout whose masks are addressed instead of drawn: whether a value is kept depends on the run, the step, the
example and the place inside it, and on nothing else.

So it does not matter how a batch is padded, packed, cut into parts, spread over processes, or trained beside the
batches of other runs: the masks are those that the run would have had alone. Salmon et al. 2011 ("Parallel random
numbers: as easy as 1, 2, 3") describe such counter-based generators; the mixing function is that of SplitMix64
(Steele et al. 2014), 15 of whose bits decide one value.
"""

from __future__ import annotations

import math
from typing import Any

import torch

GOLDEN, FIRST, SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685
"""SplitMix64's increment and multipliers, as signed 64-bit numbers."""
CALL, QUERY, KEY, HEAD = -4417276706812531889, 5871781006564002453, -3335678366873096957, 8513621213218362353
"""Odd numbers that keep the coordinates of a value apart when they are added up."""
LANES = 4
"""Decisions from one 64-bit number, of 15 bits each."""
LEVELS = 1 << 15


class Masks:
    """The masks of one forward pass over N rows of T positions."""

    def __init__(self, seeds: torch.Tensor, positions: torch.Tensor):
        """``seeds`` (N, T): of the example that stands there; ``positions`` (N, T): inside the example."""
        self.seeds, self.positions, self.calls = seeds, positions, 0

    def keep(self, shape: torch.Size, p: float) -> torch.Tensor:
        """Decide which values stay, int16 of ``shape``: all bits set, or none.

        The first dimension may be N, followed by T or by heads, T and T, or N times T. Where a row holds one example,
        other numbers may stand for T, those of a decoder's positions, which count from 0. A tensor of another shape
        belongs to no example, and takes the place of the first row's.
        """
        self.calls += 1
        rows, tokens = self.seeds.shape
        seeds = self.seeds + torch.tensor(self.calls) * CALL  # wraps around, which a Python number does not
        if len(shape) > 1 and shape[0] == rows * tokens and tokens > 1:
            return self.keep_rows(seeds, shape[1:], p).reshape(shape)
        if len(shape) == 4 and shape[0] == rows and shape[2:] == (tokens, tokens):  # heads may be as many as positions
            return _attention(seeds + self.positions * QUERY, self.positions * KEY, shape, p)
        if len(shape) > 2 and shape[:2] == (rows, tokens):
            return self.keep_rows(seeds, shape[2:], p)
        own = shape[0] == rows and len(shape) > 1
        if own and len(shape) > 2:
            count = [torch.arange(size, device=seeds.device) for size in shape[1:]]
            if len(shape) == 4:
                return _attention(seeds[:, :1] + count[1] * QUERY, (count[2] * KEY).expand(rows, -1), shape, p)
            return _by_position(seeds[:, :1] + count[0] * QUERY, shape[2:], p)
        first = seeds[:, 0].reshape(-1, *[1] * (len(shape) - 1)) if own else seeds[0, 0]
        inner = _counter(shape[1:] if own else shape, -(-shape[-1] // LANES), seeds.device)
        return _decide(_lanes(first + inner).flatten(-2)[..., : shape[-1]], p)

    def from_here(self) -> Masks:
        """Give the same masks once more, beginning with the next call."""
        again = Masks(self.seeds, self.positions)
        again.calls = self.calls
        return again

    def uniform(self, shape: torch.Size) -> torch.Tensor:
        """Draw numbers between -1 and 1 in steps of 2 / LEVELS, float32 of ``shape``, which begins with N and T."""
        self.calls += 1
        seeds = self.seeds + torch.tensor(self.calls) * CALL
        words = (seeds + self.positions * QUERY).reshape(*seeds.shape, *[1] * (len(shape) - 2))
        words = words + _counter(shape[2:], -(-shape[-1] // LANES), seeds.device)
        return (_lanes(words).flatten(-2)[..., : shape[-1]] + 0.5) * (2 / LEVELS) - 1

    def keep_rows(self, seeds: torch.Tensor, inner: torch.Size, p: float) -> torch.Tensor:
        """Decide which values stay, (N, T, ...), where each position has ``inner`` values."""
        return _by_position(seeds + self.positions * QUERY, inner, p)


def _by_position(places: torch.Tensor, inner: torch.Size, p: float) -> torch.Tensor:
    """Decide which values stay, (N, T, ...), where each of ``places`` (N, T) has ``inner`` values."""
    words = places.reshape(*places.shape, *[1] * len(inner))
    words = words + _counter(inner, -(-inner[-1] // LANES), places.device)
    return _decide(_lanes(words).flatten(-2)[..., : inner[-1]], p)


def _attention(queries: torch.Tensor, keys: torch.Tensor, shape: torch.Size, p: float) -> torch.Tensor:
    """Decide the same for attention weights of ``shape`` (N, heads, Q, K), whose places are ``queries`` (N, Q) and
    ``keys`` (N, K)."""
    heads = torch.arange(-(-shape[1] // LANES), device=queries.device) * HEAD
    words = queries[:, None, :, None] + keys[:, None, None, :] + heads[:, None, None]
    lanes = _lanes(words).permute(0, 1, 4, 2, 3).reshape(shape[0], -1, *shape[2:])
    return _decide(lanes[:, : shape[1]], p)


def _counter(shape: torch.Size, last: int, device: torch.device) -> torch.Tensor:
    """Number the places of ``shape``, each differently; its last dimension counts ``last`` words."""
    size = [*shape[:-1], last]
    return (torch.arange(math.prod(size), device=device) * GOLDEN).reshape(size)


def _lanes(words: torch.Tensor) -> torch.Tensor:
    """Mix 64-bit numbers, in place, and cut them into (..., LANES) numbers of 15 random bits."""
    words = words.contiguous()
    for shift, factor in ((30, FIRST), (27, SECOND)):
        words ^= _shifted(words, shift)
        words *= factor
    words ^= _shifted(words, 31)
    return (words.view(torch.int16) & (LEVELS - 1)).reshape(*words.shape, LANES)


def _shifted(words: torch.Tensor, by: int) -> torch.Tensor:
    """Shift to the right, filling in zeros; torch's own shift fills in the sign."""
    return (words >> by).bitwise_and_((1 << (64 - by)) - 1)


def _decide(lanes: torch.Tensor, p: float) -> torch.Tensor:
    """Set all bits where a number of 15 bits is not among the lowest share ``p``: the sign of a difference."""
    return (dropped(p) - 1 - lanes) >> 15


def dropped(p: float) -> int:
    """Count how many of the LEVELS equally likely numbers mean that a value is dropped."""
    return round(p * LEVELS)


def scale(p: float) -> float:
    """Compute the factor of kept values that leaves their mean unchanged: exactly, whatever ``p`` rounds to."""
    return LEVELS / (LEVELS - dropped(p)) if dropped(p) < LEVELS else 0.0


def masked(values: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Keep ``values`` where ``keep`` has its bits set, and put zero elsewhere. The result is laid out in memory like
    ``values``: as torch's own dropout gives them, and as models that look at them through a view expect them.

    For 16-bit values bits are enough, several times as fast as a product with a mask.
    """
    found = torch.empty_like(values)
    if values.element_size() == keep.element_size():
        torch.bitwise_and(values.view(torch.int16), keep, out=found.view(torch.int16))
    else:
        torch.where(keep.bool(), values, values.new_zeros(()), out=found)
    return found


class Dropout(torch.autograd.Function):
    """``values`` masked and scaled."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, keep: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.save_for_backward(keep)
        ctx.factor = factor
        return masked(values, keep).mul_(factor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (keep,) = ctx.saved_tensors
        return masked(gradients[0], keep).mul_(ctx.factor), None, None
