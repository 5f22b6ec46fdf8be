"""Correlation of two columns of numbers, and what each example adds to it. Shapes: n examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def standardised(values: Numbers) -> Numbers | None:
    """Give ``values`` (n,) from their mean in their own standard deviations; None where all are the same."""
    if (values == values[0]).all():
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # of a model that has diverged, which then has no correlation
        centred = values / np.abs(values).max()  # so that no square is too large or too small for a float
        centred = centred - centred.mean()
        spread = np.sqrt(np.mean(centred**2))
    return centred / spread if spread > 0 else None if spread == 0 else np.full(len(values), np.nan)


def correlation(said: Numbers, wanted: Numbers) -> float:
    """Compute Pearson's correlation; 0 where one of the two is constant, and not a number where one holds none."""
    one, other = standardised(said), standardised(wanted)
    return 0.0 if one is None or other is None else float(np.clip(np.mean(one * other), -1, 1))


def added(said: Numbers, wanted: Numbers) -> Numbers:
    """Compute what each example adds to Pearson's correlation r, (n,): r and its derivative by the example's weight.

    With x and y in standard deviations from their means that is r + xy - r (x² + y²) / 2 (Devlin, Gnanadesikan &
    Kettenring 1975, "Robust Estimation and Outlier Detection with Correlation Coefficients"). 0 everywhere where r is
    undefined.
    """
    one, other = standardised(said), standardised(wanted)
    if one is None or other is None:
        return np.zeros(len(said))
    value = correlation(said, wanted)
    return value + one * other - value * (one**2 + other**2) / 2


def ranks(values: Numbers) -> Numbers:
    """Rank ``values`` (n,) from 1; equal ones have the mean of their ranks. Nothing but NaN where one is NaN."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, method="average", nan_policy="propagate"), dtype=float)


def moved(values: Numbers, own: Numbers, others: Numbers) -> Numbers:
    """Compute what an example's weight does to a correlation of ranks by moving others' ranks, (n,).

    ``values`` are what is ranked, and ``own`` and ``others`` the ranks of the two columns. One example more raises by 1
    the rank of all that are above it, and by a half that of its equals.
    """
    one, other = standardised(own), standardised(others)
    if one is None or other is None:
        return np.zeros(len(values))
    slopes = (other - np.mean(one * other) * one) / own.std()
    _, place = np.unique(values, return_inverse=True)
    together = np.bincount(place, slopes)
    above = together.sum() - np.cumsum(together)
    return np.asarray((above + together / 2)[place])
