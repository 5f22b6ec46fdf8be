"""What each example contributes to a number that is known for all of them together only: the jackknife."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finetune.metrics.base import Values

GROUPS = 200
"""Parts that are left out in turn, at most: the number is computed once for each."""


def pseudo_values(found: float, n: int, value_of: Callable[[NDArray[np.bool_]], float]) -> Values:
    """Compute what each of ``n`` examples contributes to the number ``found`` of all of them, by leaving examples out
    (Efron and Stein 1981), group by group where there are many: (n,) floats, in the number's unit, whose mean it is.

    ``value_of`` computes the number of those examples that a mask, (n,), keeps.
    """
    count = min(n, GROUPS)
    if count < 2:
        return np.full(n, found)
    group = np.random.default_rng(0).permutation(n) % count
    without = np.array([value_of(group != place) for place in range(count)])
    pseudo = count * found - (count - 1) * without
    # Of groups, each example stands for n / count of them: so their mean has the variance of the groups' mean.
    return np.asarray(found + (pseudo - pseudo[group].mean())[group] * math.sqrt(n / count))
