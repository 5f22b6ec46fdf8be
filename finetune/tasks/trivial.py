"""An answer that needs no learning, against which runs are held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Trivial:
    """What it scores to give always the same answer, which training examples alone have decided."""

    said: str
    """What is done, in words, such as `always giving the commonest label`."""
    measure: str
    """What is measured of each example, in words."""
    scores: NDArray[np.float64]
    """(examples,) in their order."""
    higher_is_better: bool = True
