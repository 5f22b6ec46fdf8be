"""Exact tests that assume nothing but that labels could have been exchanged: of seeds, and of two single models."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

MOST_EXACT = 30
"""Pairs up to which all signs are tried: two sorted halves of 2^15 sums."""
RESAMPLES = 9_999
"""Random relabellings where there are too many for all."""


@dataclass(frozen=True)
class Permutation:
    """A two-sided p-value, and the smallest one that so few seeds can reach."""

    p_value: float
    smallest: float


def sign_flips(differences: ArrayLike, rng: np.random.Generator) -> Permutation:
    """Test whether paired ``differences`` (n,), n >= 1, in any unit, centre on zero: their sum under all 2^n signs.

    Fisher's randomisation test (The Design of Experiments, 1935, section 21). A pair of seeds may change sides where
    the variants do not differ. Exact up to 30 pairs: every sum is one of the first half's plus one of the second's, so
    that sorting each is enough to count. Above that :data:`RESAMPLES` random signs, and the found ones counted along
    (Phipson & Smyth 2010). With n pairs p cannot be below 2^(1 - n): 0.0625 at five.
    """
    values = np.asarray(differences, dtype=float)
    n = len(values)
    # Sums that are equal but for rounding are equal.
    seen = abs(float(values.sum())) - 1e-9 * float(np.abs(values).sum())
    if n <= MOST_EXACT:
        first, second = _signed_sums(values[: n // 2]), np.sort(_signed_sums(values[n // 2 :]))
        # All signs changed give the other tail, so counting one is enough.
        above = len(second) - np.searchsorted(second, seen - first, side="left")
        p_value = min(1.0, 2 * float(above.sum()) / 2.0**n) if seen > 0 else 1.0
        return Permutation(p_value, 2.0 ** (1 - n))
    signs = rng.integers(0, 2, (RESAMPLES, n)) * 2 - 1
    found = int((np.abs(signs @ values) >= seen).sum())
    return Permutation((found + 1) / (RESAMPLES + 1), 1 / (RESAMPLES + 1))


def _signed_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def relabellings(left: ArrayLike, right: ArrayLike, rng: np.random.Generator) -> Permutation:
    """Test whether ``left`` (m,) and ``right`` (n,) have the same mean: the difference under all ways to deal them out.

    Pitman's test (1937): exact where there are no more than :data:`RESAMPLES` ways, otherwise as many at random.
    """
    one, other = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    found = stats.permutation_test(
        (one, other),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        permutation_type="independent",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=rng,
    )
    ways = comb(len(one) + len(other), len(one))
    return Permutation(float(found.pvalue), min(1.0, 2 / ways if ways <= RESAMPLES else 2 / (RESAMPLES + 1)))


def mcnemar(left: ArrayLike, right: ArrayLike) -> float | None:
    """Compute McNemar's exact p-value (1947) of two single models, ``left`` and ``right`` (examples,), 1 and 0.

    Of the examples that only one of the two has right, each should have half. It speaks of these two models only, not
    of what trained them. None where an entry is neither 1 nor 0.
    """
    one, other = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    if not np.isin(one, (0, 1)).all() or not np.isin(other, (0, 1)).all():
        return None
    ahead, behind = int((one > other).sum()), int((one < other).sum())
    return 1.0 if ahead == behind else float(stats.binomtest(ahead, ahead + behind).pvalue)
