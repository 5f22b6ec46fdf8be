"""The learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from finetune.train.options import TrainOptions


def rate_at(step: int, total: int, options: TrainOptions, falls: Sequence[int] = ()) -> float:
    """Compute the learning rate at ``step`` (from 0) of ``total``. ``falls``: the steps done each time that the
    validation score was found on a plateau."""
    fallen = options.plateau.factor ** sum(fall <= step for fall in falls)
    return options.learning_rate * rate_factor(step, total, options.warmup, options.schedule) * fallen


def rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """Compute the share of the peak learning rate at ``step`` (from 0) of ``total``.

    It rises along a line over the first ``warmup`` share of the steps, reaching 1 at its last, then falls to zero
    just after the last step (linear or cosine), or stays. The first step is never wasted on a rate of zero.
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    if schedule in ("constant", "plateau"):
        return 1.0
    done = (step - rising) / max(total - rising, 1)
    return 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
