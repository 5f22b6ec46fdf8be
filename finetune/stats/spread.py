"""The seeds' spread taken apart: how much the models differ, and how much of it is the test set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.stats.estimates import NO_SCORE, TOO_FEW, Interval, sd_interval


@dataclass(frozen=True)
class Spread:
    """Where the seeds' spread of a score comes from; all SDs and intervals in the score's unit.

    ``sd`` is what one sees, ``sd_floor`` what a test set of this size causes alone, and ``sd_corrected`` what would
    remain on an endless test set, which is how much the models really differ.
    """

    runs: int
    examples: int
    sd: float | None
    sd_floor: float | None
    sd_corrected: float | None
    sd_ci: Interval | None = None
    sd_corrected_ci: Interval | None = None
    clipped: bool = False
    """Whether the corrected variance came out below zero, as it may by chance, and was set to zero."""
    level: float = 0.95
    reason: str | None = None


def spread(matrix: ArrayLike, clusters: ArrayLike | None = None, level: float = 0.95) -> Spread:
    """Split the seeds' spread of a score into test-set noise and true spread (Jordan, ICLR 2024, Theorem 2).

    ``matrix`` has shape (runs, examples): contributions, whose mean over examples is the run's score. With N examples
    the unbiased variance is N/(N-1) * [Var_seed(mean) - sum_i Var_seed(x_i) / N^2], all variances with ddof 1; the
    sum is the floor. It is the mean covariance, over seeds, of two different examples. ``clusters`` (examples,) gives
    examples that belong together (passages of one document, say) the same integer: the floor then sums over clusters
    the variances of their sums, and the corrected variance is the mean covariance of two examples of different
    clusters.

    The interval of the corrected SD is that of the raw variance less the floor. The floor averages over all examples
    and is taken as known: simulations (scripts/simulate) find that it hides nothing. An upper end of 0 says that the
    scores lie closer together than test-set noise alone would bring them, which 1 in 40 samples do by chance.

    Unbiased is the variance before it is clipped at zero; its root, like every SD, falls a little short on average.
    Fewer than two runs, or than two clusters, leave None, with a reason.
    """
    values = np.asarray(matrix, dtype=float)
    assert values.ndim == 2, "expected (runs, examples)"
    runs, examples = values.shape
    if runs < 2 or not examples:
        return Spread(runs, examples, None, None, None, level=level, reason=TOO_FEW if runs and examples else NO_SCORE)
    sums, sizes = _by_cluster(values, clusters)
    scores = values.mean(axis=1)
    raw, floor = float(scores.var(ddof=1)), float(sums.var(axis=0, ddof=1).sum() / examples**2)
    interval = sd_interval(scores, level)
    if len(sizes) < 2:
        what = "one group of examples" if examples > 1 else "one example"
        reason = f"{what} cannot tell the models' spread from its own noise"
        return Spread(runs, examples, raw**0.5, floor**0.5, None, interval, level=level, reason=reason)
    across = 1 - float((sizes**2).sum()) / examples**2  # share of the pairs of examples in different clusters

    def corrected(sd: float) -> float:
        return max(0.0, (sd**2 - floor) / across) ** 0.5

    ends = corrected(interval[0]), corrected(interval[1])
    return Spread(
        runs, examples, raw**0.5, floor**0.5, corrected(raw**0.5), interval, ends, clipped=raw < floor, level=level
    )


def _by_cluster(
    matrix: NDArray[np.float64], clusters: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum over each cluster, (runs, clusters), and count its examples, (clusters,)."""
    if clusters is None:
        return matrix, np.ones(matrix.shape[1])
    labels = np.asarray(clusters)
    assert labels.shape == matrix.shape[1:], "expected one cluster for each example"
    _, first, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(first, kind="stable")
    starts = np.append(0, np.cumsum(sizes)[:-1])
    return np.add.reduceat(matrix[:, order], starts, axis=1), sizes.astype(float)
