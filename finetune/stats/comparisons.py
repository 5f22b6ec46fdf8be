"""Two variants, or a variant and one fixed model: how far their means lie apart, and how well that is known.

A difference is that of the means that stand in the table; its variance is :mod:`finetune.stats.multibootstrap`'s. What
it allows to say, beside all others, is judged in :mod:`finetune.stats.judging`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.stats.dispersion import Dispersion, dispersion
from finetune.stats.estimates import Interval
from finetune.stats.improvement import improvement_interval, probability_of_improvement, share_interval
from finetune.stats.multibootstrap import (
    Uncertainty,
    by_cluster,
    uncertainty_of_difference,
    uncertainty_of_mean,
)
from finetune.stats.permutation import Permutation, mcnemar, relabellings, sign_flips

Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, eq=False)
class VariantScores:
    """One variant on one task and metric."""

    scores: NDArray[np.float64]
    """(runs,) in the metric's unit."""
    seeds: tuple[int, ...] | None
    """Of the runs, in their order; None for one model that no seed has made: the untuned base, or what is solved."""
    contributions: NDArray[np.float64] | None = None
    """(runs, examples): what each example adds, so that a row's mean is the run's score; None where nothing does."""

    @classmethod
    def of(cls, scores: Mapping[int, float], contributions: ArrayLike | None = None) -> VariantScores:
        """Make it from scores by seed; rows of ``contributions`` stand in the same order."""
        return cls._made(list(scores.values()), tuple(scores), contributions)

    @classmethod
    def fixed(cls, score: float, contributions: ArrayLike | None = None) -> VariantScores:
        """One model without a seed; ``contributions`` (examples,)."""
        return cls._made([score], None, None if contributions is None else np.atleast_2d(contributions))

    @classmethod
    def _made(
        cls, scores: list[float], seeds: tuple[int, ...] | None, contributions: ArrayLike | None
    ) -> VariantScores:
        values = np.array(scores, dtype=float)
        matrix = None if contributions is None else np.asarray(contributions, dtype=float)
        assert matrix is None or matrix.shape[:1] == values.shape, "expected (runs, examples), one row for each score"
        return cls(values, seeds, matrix)

    def __len__(self) -> int:
        return len(self.scores)

    def rows(self, examples: bool) -> NDArray[np.float64]:
        """Give the contributions (runs, examples), or the scores as one column."""
        return self.contributions if examples and self.contributions is not None else self.scores[:, None]

    def pick(self, seeds: Sequence[int]) -> VariantScores:
        """The runs of these seeds, in their order."""
        assert self.seeds is not None, "a fixed model has no seeds"
        index = [self.seeds.index(seed) for seed in seeds]
        matrix = None if self.contributions is None else self.contributions[index]
        return VariantScores(self.scores[index], tuple(seeds), matrix)


@dataclass(frozen=True)
class Comparison:
    """``left`` minus ``right``, in the score's unit. What the seeds do not allow is None, and ``reason`` says why."""

    n: int
    """Seeds that the difference rests on, of the side that has fewer."""
    level: float
    """Of the intervals."""
    method: str
    """What is paired, what is drawn anew, and which family it is judged in."""
    pairs: int = 0
    """Seeds that both sides have, by which they are paired; 0 where they are not."""
    examples: int | None = None
    """Held-out examples drawn anew, which both sides were scored on; None where only seeds are."""
    groups: int | None = None
    """Groups of examples that belong together; None where each stands for itself."""
    difference: float | None = None
    """Of the means, left minus right."""
    se: float | None = None
    """Standard error of the difference."""
    ci: Interval | None = None
    """Of the difference, over new seeds and new examples; simultaneous for all that are judged together."""
    p_value: float | None = None
    """Two-sided, of no difference, on its own."""
    p_value_adjusted: float | None = None
    """The same for all that are judged together: below 1 - level exactly where `ci` leaves zero out."""
    could_see: float | None = None
    """The smallest true difference for which `ci` leaves zero out with a chance of 80 %; for the leader, by which it is
    ahead of all others."""
    p_permutation: float | None = None
    """Exact test of the signs of paired differences, on these examples."""
    p_permutation_smallest: float | None = None
    """What ``p_permutation`` cannot be below with so few seeds."""
    p_mcnemar: float | None = None
    """Of two single models only."""
    probability_of_improvement: float | None = None
    """Chance that a random seed of the left beats one of the right; ties count half."""
    probability_of_improvement_ci: Interval | None = None
    """Over seeds."""
    sd_ratio: float | None = None
    """The left's SD over seeds divided by the right's."""
    sd_ratio_ci: Interval | None = None
    """Over seeds."""
    p_spread: float | None = None
    """Brown and Forsythe's, for "both scatter alike"."""
    reason: str | None = None
    """Why something is None."""


@dataclass(frozen=True, eq=False)
class Compared:
    """A pair whose difference and its variance are known, and that no family has judged yet."""

    found: Comparison
    noise: Uncertainty | None = None
    """None where it cannot be known; ``found.reason`` says why."""
    runs: float = 0.0
    """Harmonic mean of both sides' runs; 0 unless both have seeds."""
    share: float = 0.0
    """What the variance of one pair of runs is multiplied with: 1 / ``runs``, and the overlap of the runs' data."""


def difference_of(
    left: VariantScores,
    right: VariantScores,
    rng: np.random.Generator,
    clusters: ArrayLike | None = None,
    higher_is_better: bool = True,
    level: float = 0.95,
    overlap: float = 0.0,
) -> Compared:
    """Compute how far two variants lie apart, or a variant and one fixed model, and how well that is known.

    The difference is that of the means of all runs. It, its interval and ``p_value`` speak of new seeds and new
    examples, as the multi-bootstrap does (see :mod:`finetune.stats.multibootstrap`); ``clusters`` (examples,) holds an
    integer for each example where some belong together, and then whole clusters are what is new. Where a side has no
    contributions they speak of new seeds on these examples: Student's t. Seeds that both sides have are pairs, because
    a seed fixes the same data order and initialisation on both sides. ``overlap`` is that of the runs' data where each
    has its own split (:func:`~finetune.stats.multibootstrap.uncertainty_of_mean`).

    ``p_permutation`` stands beside it: it assumes no shape of the scores' distribution, but that differences are as
    often above their centre as below it by as much, which runs that collapse break; it speaks of these examples only,
    and with five pairs cannot be below 0.0625. ``rng`` draws its relabellings where there are too many to try all.
    """
    if left.seeds is None and right.seeds is not None:
        return _turned(difference_of(right, left, rng, clusters, higher_is_better, level, overlap))
    shared = _shared(left, right)
    examples, clustered = _examples(left, right, clusters)
    improvement, scatter = _improvement(left, right, higher_is_better, level), _scatter(left, right, level)
    found = Comparison(
        n=len(left) if right.seeds is None else min(len(left), len(right)),
        level=level,
        method=_method(left, right, len(shared[0]), examples, clustered),
        pairs=len(shared[0]),
        examples=examples,
        groups=len(np.unique(np.asarray(clusters))) if clustered else None,
        probability_of_improvement=improvement[0],
        probability_of_improvement_ci=improvement[1],
        sd_ratio=scatter.ratio,
        sd_ratio_ci=scatter.ci,
        p_spread=scatter.p_value,
    )
    if not len(left) or not len(right):
        return Compared(replace(found, reason="a side has no run with this score"))
    difference = float(left.scores.mean() - right.scores.mean())
    found = replace(found, difference=difference, p_mcnemar=_single_models(left, right))
    free = [side for side in (left, right) if side.seeds is not None]
    groups = clusters if clustered else None
    if not free:
        return _of_examples(found, left, right, groups)
    if min(map(len, free)) < 2:
        reason = "one seed says nothing about the spread of the difference; run at least two"
        return Compared(replace(found, reason=reason))
    permuted = _permute(left, right, shared, rng)
    found = replace(found, p_permutation=permuted.p_value, p_permutation_smallest=permuted.smallest)
    noise = _noise(left, right, shared, groups, examples is not None, overlap)
    return _known(found, noise, left, right, overlap)


def _known(
    found: Comparison, noise: Uncertainty, left: VariantScores, right: VariantScores, overlap: float
) -> Compared:
    """The pair with its noise, unless there is none."""
    scale = float(max(np.abs(left.scores).max(), np.abs(right.scores).max()))
    # Equal differences, up to rounding, would give p = 0, from two seeds as from twenty: coarse scores tie by chance.
    if noise.se <= 1e-7 * scale:
        what = f"all {len(left)} differences are equal" if found.pairs or right.seeds is None else "no score differs"
        reason = f"{what}, so they say nothing about the spread, and no test can be made"
        return Compared(replace(found, reason=reason))
    if left.seeds is None or right.seeds is None:
        return Compared(found, noise)
    share = (1 / len(left) + 1 / len(right)) / 2
    return Compared(found, noise, 1 / share, share + overlap)


def _turned(pair: Compared) -> Compared:
    """Turn a comparison round, one side of which is a fixed model."""
    found = pair.found
    better, share = found.probability_of_improvement, found.probability_of_improvement_ci
    turned = replace(
        found,
        difference=None if found.difference is None else -found.difference,
        probability_of_improvement=None if better is None else 1 - better,
        probability_of_improvement_ci=share and (1 - share[1], 1 - share[0]),
    )
    return replace(pair, found=turned)


def _of_examples(found: Comparison, one: VariantScores, other: VariantScores, clusters: ArrayLike | None) -> Compared:
    """Compare two fixed models over new examples: Student's t of the examples' differences."""
    if found.examples is None:
        reason = "two models that no seed changes, and no scores of single examples to compare"
        return Compared(replace(found, reason=reason))
    matrix = _grouped(one.rows(True) - other.rows(True), clusters)
    count = matrix.shape[1]
    noise = Uncertainty(0.0, float(matrix.var(ddof=1)) / count, df_examples=count - 1)
    if noise.se == 0:
        return Compared(replace(found, reason="no example's score differs, so no test can be made"))
    return Compared(replace(found, method="Student's t over examples, of two models that no seed changes"), noise)


def _shared(left: VariantScores, right: VariantScores) -> tuple[list[int], list[int]]:
    """The places of the runs of common seeds, in the left and in the right."""
    if left.seeds is None or right.seeds is None:
        return [], []
    common = sorted(set(left.seeds) & set(right.seeds))
    return [left.seeds.index(seed) for seed in common], [right.seeds.index(seed) for seed in common]


def _examples(one: VariantScores, other: VariantScores, clusters: ArrayLike | None) -> tuple[int | None, bool]:
    """Count the examples that can be resampled, None for none; and tell whether in clusters."""
    if one.contributions is None or other.contributions is None:
        return None, False
    examples = one.contributions.shape[1]
    assert other.contributions.shape[1] == examples, "both sides have to be scored on the same examples"
    if clusters is not None and len(np.unique(np.asarray(clusters))) < 2:
        return None, False
    return (examples, clusters is not None) if examples > 1 else (None, False)


def _noise(
    one: VariantScores,
    other: VariantScores,
    shared: tuple[list[int], list[int]],
    clusters: ArrayLike | None,
    examples: bool,
    overlap: float,
) -> Uncertainty:
    lefts, rights = one.rows(examples), other.rows(examples)
    if other.seeds is None:
        return uncertainty_of_mean(_grouped(lefts - rights, clusters), overlap)
    return uncertainty_of_difference(_grouped(lefts, clusters), _grouped(rights, clusters), shared, overlap)


def _grouped(matrix: NDArray[np.float64], clusters: ArrayLike | None) -> NDArray[np.float64]:
    return matrix if clusters is None else by_cluster(matrix, clusters)


def _method(left: VariantScores, right: VariantScores, pairs: int, examples: int | None, clustered: bool) -> str:
    if right.seeds is None:
        how = "seeds against one fixed model"
    elif pairs > 1 and pairs == len(left) == len(right):
        how = "paired over common seeds"
    else:
        how = f"{pairs} seeds in common are paired, the others count as well" if pairs > 1 else "unpaired"
    if examples is None:
        return f"Student's t over seeds, {how}; the choice of the examples is not covered"
    what = "groups of examples" if clustered else "examples"
    return f"multi-bootstrap over seeds and {what}, its variance computed and not drawn, {how}"


def _improvement(
    left: VariantScores, right: VariantScores, higher_is_better: bool, level: float
) -> tuple[float | None, Interval | None]:
    value = probability_of_improvement(left.scores, right.scores, higher_is_better)
    if value is None:
        return None, None
    if right.seeds is None:
        return value, share_interval(value, len(left), level) if len(left) > 1 else None
    return value, improvement_interval(value, len(left), len(right), level)


def _scatter(left: VariantScores, right: VariantScores, level: float) -> Dispersion:
    return Dispersion() if right.seeds is None else dispersion(left.scores, right.scores, level)


def _single_models(one: VariantScores, other: VariantScores) -> float | None:
    if len(one) > 1 or len(other) > 1 or one.contributions is None or other.contributions is None:
        return None
    return mcnemar(one.contributions[0], other.contributions[0])


def _permute(
    one: VariantScores, other: VariantScores, shared: tuple[list[int], list[int]], rng: np.random.Generator
) -> Permutation:
    if other.seeds is None:
        return sign_flips(one.scores - other.scores, rng)
    if len(shared[0]) == len(one) == len(other):
        return sign_flips(one.scores[shared[0]] - other.scores[shared[1]], rng)
    return relabellings(one.scores, other.scores, rng)
