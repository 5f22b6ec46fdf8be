"""Rows of texts, and others that are drawn with each of them, to be compared with it.

Which negatives a pair meets is usually decided by the batch that it stands in (Henderson et al. 2017, section 4.1). A
batch is divided here as memory allows, among processes too, and losses must not depend on that: so the others are drawn
with the row itself, by a seed of its own, and learnt from with it as one example, as a small batch would be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finetune.core.examples import PART

Text = dict[str, np.ndarray]
"""Model inputs of one text by name, each (tokens,)."""

Others = Literal["any", "unlike", "balanced"]
"""Which others are drawn. `any`; `unlike`: those of another value; `balanced`: half of them of the same value."""

TRIES = 20
"""How often rows are drawn blindly, before all are looked at."""


@dataclass(frozen=True)
class Rows:
    """Rows of a data set: each is as many texts as the task compares, and a number."""

    texts: Sequence[Sequence[Text]]
    """(rows, texts of a row)."""
    values: NDArray[np.float64]
    """(rows,) the score of a pair; or equal numbers for rows that mean the same."""

    @cached_property
    def _alike(self) -> dict[float, NDArray[np.int64]]:
        """Rows by their value."""
        order = np.argsort(self.values, kind="stable")
        starts = np.flatnonzero(np.diff(self.values[order])) + 1
        return {float(self.values[own[0]]): own for own in np.split(order, starts)}

    def others(self, row: int, count: int, which: Others, seed: int) -> list[int]:
        """Draw at most ``count`` rows other than ``row``, no row twice; fewer where there are no more."""
        rng, value, size = np.random.default_rng(seed), float(self.values[row]), len(self.values)
        if which == "any":
            return _some(rng, size, count, lambda other: other != row)
        if which == "unlike":
            return _some(rng, size, count, lambda other: self.values[other] != value)
        alike = self._alike[value]
        same = [int(alike[place]) for place in _some(rng, len(alike), count // 2, lambda place: alike[place] != row)]
        return same + _some(rng, size, count - len(same), lambda other: self.values[other] != value)

    def together(self, rows: Sequence[int]) -> tuple[dict[str, np.ndarray], tuple[float, ...]]:
        """Make one example of ``rows``: its inputs, in which their texts follow each other, and their values."""
        return joined([text for row in rows for text in self.texts[row]]), tuple(self.values[list(rows)].tolist())


def _some(rng: np.random.Generator, size: int, count: int, right: Callable[[int], bool]) -> list[int]:
    """Draw at most ``count`` different numbers below ``size`` that are ``right``."""
    chosen: dict[int, None] = {}
    if count < 1 or size < 1:
        return []
    for _ in range(TRIES):
        for number in rng.integers(size, size=2 * count).tolist():
            if right(number):
                chosen[number] = None
                if len(chosen) == count:
                    return list(chosen)
    left = [number for number in range(size) if number not in chosen and right(number)]
    return [*chosen, *(left[place] for place in rng.permutation(len(left))[: count - len(chosen)])]


def joined(texts: Sequence[Text]) -> dict[str, np.ndarray]:
    """Put the inputs of several texts one after another, with the number of each token's text."""
    sizes = [len(text["input_ids"]) for text in texts]
    inputs = {name: np.concatenate([text[name] for text in texts]) for name in texts[0]}
    return {**inputs, PART: np.repeat(np.arange(len(texts), dtype=np.int32), sizes)}
