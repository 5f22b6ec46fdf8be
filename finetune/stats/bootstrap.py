"""A bootstrap interval of a mean that few values do not make too narrow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

RESAMPLES = 10_000


def bca_interval(
    values: NDArray[np.float64], rng: np.random.Generator, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Compute the expanded BCa interval of the mean of ``values`` (n,), in their unit; n >= 2, not all equal.

    Efron's (1987) bias-corrected and accelerated percentiles follow a skewed distribution where a t interval does
    not, but with n values they are narrow as a normal interval with an SD over n is, and 95 % cover 90 % at n = 10.
    Hesterberg (2015, The American Statistician 69, section 4.2) takes percentiles further out, at
    Φ(-sqrt(n / (n - 1)) t), where t is Student's quantile at this level with n - 1 degrees of freedom. The order of
    the values does not matter.
    """
    n, mean = len(values), float(np.mean(values))
    deviations = np.sort(values) - mean
    drawn = deviations.take(rng.integers(n, size=(resamples, n))) @ np.full(n, 1 / n)
    tied = np.abs(drawn) <= 1e-9 * np.abs(deviations).max()  # coarse scores tie, up to rounding; half of these count
    below = np.mean(np.where(tied, 0.5, drawn < 0))
    bias = special.ndtri(np.clip(below, 1 / resamples, 1 - 1 / resamples))
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    reach = np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, (1 + level) / 2)
    ends = bias + np.array([-reach, reach])
    low, high = mean + np.quantile(drawn, special.ndtr(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)
