"""Named random streams: every draw belongs to one of five, so that a report can say what varied."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    import torch

StreamName = Literal["split", "init", "order", "dropout", "noise"]
STREAMS: tuple[StreamName, ...] = get_args(StreamName)

FIXED_SEED = 0
"""The seed of a stream that does not vary between runs."""


@dataclass(frozen=True)
class Streams:
    """The streams of one run. A stream outside ``vary`` is the same in every run of the study.

    Draws are addressed by position (``order`` of epoch 3, ``dropout`` of step 120) instead of consumed from a
    generator with hidden state. Resuming is then exact with nothing to restore, a stream cannot be shifted by
    draws made for another purpose, and several runs can be trained side by side.
    """

    seed: int
    vary: frozenset[str] = frozenset(STREAMS) - {"split"}
    own: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Streams with a seed of their own, by name, whatever ``seed`` and ``vary`` say."""

    @classmethod
    def spelled(cls, number: int) -> Streams:
        """The streams of a run in a crossed design, whose seed spells theirs: a digit each, in the order of STREAMS.

        1320 is split 0, init 1, order 3, dropout 2, noise 0: those of digit 0 are :data:`FIXED_SEED` in all runs.
        """
        digits = f"{number:0{len(STREAMS)}d}"
        own: dict[str, int] = {name: int(digit) for name, digit in zip(STREAMS, digits, strict=True)}
        return cls(number, frozenset(name for name in STREAMS if own[name] != FIXED_SEED), own)

    def seed_of(self, stream: StreamName, *position: int) -> int:
        """A 63-bit seed for ``stream`` at ``position``; unrelated for any two different arguments."""
        if stream not in STREAMS:
            raise ValueError(f"unknown stream {stream!r}; there are {', '.join(STREAMS)}")
        text = ":".join(map(str, (self._base(stream), stream, *position)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def numpy(self, stream: StreamName, *position: int) -> np.random.Generator:
        """A fresh NumPy generator for ``stream`` at ``position``."""
        import numpy as np

        return np.random.default_rng(self.seed_of(stream, *position))

    @contextmanager
    def globally(self, stream: StreamName, *position: int) -> Iterator[None]:
        """Let the global generators of torch, NumPy and Python draw from ``stream`` within the block.

        For library code that draws from the global state (weight initialisation, dropout, peft). The former
        states come back afterwards.
        """
        import numpy as np
        import torch

        python_state, numpy_state = random.getstate(), np.random.get_state()
        devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        with torch.random.fork_rng(devices=devices):
            seed_everything(self.seed_of(stream, *position))
            try:
                yield
            finally:
                random.setstate(python_state)
                np.random.set_state(numpy_state)

    def facts(self, names: Iterable[StreamName] = STREAMS) -> dict[str, int]:
        """Tell which seed drives each stream, for the run's result."""
        return {name: self._base(name) for name in names}

    def _base(self, stream: str) -> int:
        return self.own.get(stream, self.seed if stream in self.vary else FIXED_SEED)


def to_digits(seeds: Mapping[str, int]) -> int:
    """The number that :meth:`Streams.spelled` takes apart into ``seeds``, each from 0 to 9; streams left out have 0."""
    assert seeds.keys() <= set(STREAMS) and all(0 <= seed <= 9 for seed in seeds.values()), "one digit for a stream"
    return int("".join(str(seeds.get(name, 0)) for name in STREAMS))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of ``device``: much faster than looking for every device."""
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
