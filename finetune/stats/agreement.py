"""Do the seeds say the same? Disagreement, Fleiss' kappa and churn: an SD can be zero while predictions flip."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.stats.estimates import NO_SCORE, TOO_FEW, Interval
from finetune.stats.jackknife import interval, share_interval

METHOD = "all pairs of seeds; intervals leave one {unit} out at a time, with Student's t: they do not cover the seeds"
ALL_AGREE = "no two seeds differ on any example, which gives no interval; it is not certainty"
ALL_FLIP = "every example flips as much as every other, which gives no interval"
ALIKE = "every {unit} flips as much as every other, which gives no interval"
ONE_UNIT = "one {unit} says nothing about others"
ONE_CATEGORY = "every seed predicts the same for every example, so agreement by chance is complete and kappa is 0 / 0"
NEARLY_ONE_CATEGORY = "all but one {unit} have one and the same prediction, so kappa's interval cannot be told"

Codes = NDArray[np.int64]
Votes = tuple[Codes, Codes, Codes]
"""Owner (an example or a cluster of them), category, and how many votes it has there; only where it has any."""


@dataclass(frozen=True)
class Agreement:
    """The agreement of ``runs`` seeds on the same ``examples``. What is too few to say is None."""

    runs: int
    """Seeds that are compared."""
    examples: int
    """How many they all predicted."""
    disagreement: float | None
    """Mean churn: the chance that two seeds differ on an example."""
    disagreement_ci: Interval | None
    """Over examples."""
    kappa: float | None
    """Agreement beyond that by chance: 1 is complete, 0 is what chance alone would give."""
    kappa_ci: Interval | None
    """Over examples."""
    kappa_reason: str | None
    """Why there is no kappa."""
    flipped: int
    """Examples on which not all seeds agree. More seeds find more of them; churn does not depend on their number."""
    flipped_ci: Interval | None
    """Of their share."""
    contested: int | None
    """Examples that some seeds have right and others wrong; None without references."""
    dissenters: list[int]
    """At place k the number of examples on which k seeds differ from the most common prediction, k = 0 ... runs - 1."""
    level: float
    """Of the intervals."""
    method: str
    """How they were computed."""
    reason: str | None = None
    """Why something is None."""


def codes_of(rows: Sequence[Sequence[Hashable]]) -> list[Codes]:
    """Number each row's predictions, the same text with the same number in every row; rows may differ in length.

    A text counts as a whole: two answers that differ in one letter are two categories.
    """
    numbers: dict[Hashable, int] = {}
    return [np.array([numbers.setdefault(text, len(numbers)) for text in row], dtype=np.int64) for row in rows]


def churn(codes: ArrayLike) -> NDArray[np.float64]:
    """Compute for each example, (examples,), the share of pairs of seeds that differ; ``codes`` (runs, examples).

    With v votes for each category: 1 - sum v (v - 1) / (R (R - 1)), the complement of P_i in Fleiss (1971). Fewer than
    two runs have no pair, and give 0.
    """
    table = _matrix(codes)
    return _churn(_votes(np.arange(table.shape[1]), table), *table.shape)


def agreement(
    codes: ArrayLike, references: ArrayLike | None = None, clusters: ArrayLike | None = None, level: float = 0.95
) -> Agreement:
    """Compute the agreement of ``codes`` (runs, examples), predictions as integers from 0, over all pairs of seeds.

    ``references`` (examples,) are the right answers in the same coding; ``clusters`` (examples,) says which examples
    belong together and are left out together. Kappa is that of Fleiss (Psychological Bulletin 76, 1971): (P - P_e) /
    (1 - P_e), with P = 1 - disagreement and P_e the sum of the categories' squared shares. Where all predictions are
    one category it is 0 / 0 and therefore None, not 1. For texts, where hardly two are alike by chance, P_e is nearly 0
    and kappa nearly P. Intervals are over examples, for the seeds at hand.
    """
    table = _matrix(codes)
    runs, examples = table.shape
    unit = "example" if clusters is None else "cluster"
    method = METHOD.format(unit=unit)
    if runs < 2 or not examples:
        none = TOO_FEW if runs and examples else NO_SCORE
        return Agreement(runs, examples, None, None, None, None, none, 0, None, None, [], level, method, none)
    by_example = by_cluster = _votes(np.arange(examples), table)
    example, _, votes = by_example
    most = np.maximum.reduceat(votes, np.flatnonzero(np.diff(example, prepend=-1)))
    differ = _churn(by_example, runs, examples)
    owners = np.arange(examples)
    if clusters is not None:
        owners = np.unique(np.asarray(clusters), return_inverse=True)[1]
        by_cluster = _votes(owners, table)
    flips = most < runs
    flipped = int(flips.sum())
    disagreement_ci = _share_interval(differ, owners, level)
    reason = None
    if disagreement_ci is None:
        reason = {0: ALL_AGREE, examples: ALL_FLIP}.get(flipped, ALIKE) if owners.max() else ONE_UNIT
    kappa, kappa_ci, kappa_reason = _kappa(by_cluster, runs, 1 - differ, owners, level)
    return Agreement(
        runs=runs,
        examples=examples,
        disagreement=float(differ.mean()),
        disagreement_ci=disagreement_ci,
        kappa=kappa,
        kappa_ci=kappa_ci,
        kappa_reason=kappa_reason.format(unit=unit) if kappa_reason else None,
        flipped=flipped,
        flipped_ci=_share_interval(flips, owners, level),
        contested=None if references is None else _contested(table, np.asarray(references)),
        dissenters=np.bincount(runs - most, minlength=runs).tolist(),
        level=level,
        method=method,
        reason=reason.format(unit=unit) if reason else None,
    )


def _kappa(
    by_cluster: Votes, runs: int, alike: NDArray[np.float64], clusters: Codes, level: float
) -> tuple[float | None, Interval | None, str | None]:
    """Compute Fleiss' kappa, its interval, and why one is missing; ``alike`` (examples,): the share of equal pairs."""
    cluster, category, votes = by_cluster
    examples, count = len(alike), int(clusters.max()) + 1
    totals = np.bincount(category, weights=votes)
    by_chance = float((totals**2).sum() / (examples * runs) ** 2)
    if np.count_nonzero(totals) == 1:
        return None, None, ONE_CATEGORY
    kappa = (float(alike.mean()) - by_chance) / (1 - by_chance)
    if count < 2:
        return kappa, None, ONE_UNIT
    # Without cluster g: sum_j (c_j - v_gj)^2 = sum c^2 - 2 sum_j c_j v_gj + sum_j v_gj^2, for all clusters at once.
    left = examples - np.bincount(clusters)
    squares = (totals**2).sum() + np.bincount(cluster, weights=votes * (votes - 2 * totals[category]), minlength=count)
    rest = (alike.sum() - np.bincount(clusters, weights=alike)) / left
    chance = squares / (left * runs) ** 2
    if np.any(chance > 1 - 1e-12):
        return kappa, None, NEARLY_ONE_CATEGORY
    low, high = interval(kappa, (rest - chance) / (1 - chance), level)
    return kappa, (low, min(high, 1.0)), None


def _churn(by_example: Votes, runs: int, examples: int) -> NDArray[np.float64]:
    if runs < 2:
        return np.zeros(examples)
    example, _, votes = by_example
    return 1 - np.bincount(example, weights=votes * (votes - 1), minlength=examples) / (runs * (runs - 1))


def _share_interval(values: NDArray[np.float64] | NDArray[np.bool_], clusters: Codes, level: float) -> Interval | None:
    """Compute the interval of the mean of ``values`` (examples,), by leaving out one cluster of examples at a time."""
    sums, sizes = np.bincount(clusters, weights=values), np.bincount(clusters)
    if len(sizes) < 2:
        return None
    return share_interval(float(values.mean()), (sums.sum() - sums) / (len(values) - sizes), level)


def _contested(table: Codes, references: NDArray[np.int64]) -> int:
    right = (table == references).sum(axis=0)
    return int(np.count_nonzero((right > 0) & (right < len(table))))


def _votes(owners: Codes, table: Codes) -> Votes:
    """Count votes, in order of ``owners`` (examples,). Sparse, because texts have almost as many categories as rows."""
    width = table.max(initial=0) + 1
    keys, votes = np.unique(owners * width + table, return_counts=True)
    return keys // width, keys % width, votes


def _matrix(codes: ArrayLike) -> Codes:
    table = np.asarray(codes)
    assert table.ndim == 2 and (table.size == 0 or (table.dtype.kind in "iu" and table.min() >= 0)), (
        "expected (runs, examples) integers from 0"
    )
    return table.astype(np.int64)
