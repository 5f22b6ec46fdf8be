"""Two variants against each other over new seeds and new examples, and a verdict that survives many comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.stats.dispersion import Dispersion, dispersion
from finetune.stats.estimates import Interval
from finetune.stats.improvement import improvement_interval, probability_of_improvement, share_interval
from finetune.stats.multibootstrap import Uncertainty, by_cluster, uncertainty
from finetune.stats.permutation import Permutation, mcnemar, relabellings, sign_flips

Verdict = Literal["better", "worse", "undecided"]

POWER = 0.8
"""Chance of seeing a difference from which the smallest detectable one is told."""


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
    """Seeds that the difference rests on: pairs, or those of the side that has fewer."""
    level: float
    """Of the intervals."""
    method: str
    """What is paired, and what is drawn anew."""
    pairs: int = 0
    """Seeds that both sides have and are paired by; 0 where they are not paired."""
    examples: int | None = None
    """Held-out examples drawn anew, which both sides were scored on; None where only seeds are."""
    groups: int | None = None
    """Groups of examples that belong together; None where each stands for itself."""
    difference: float | None = None
    """Of the means, left minus right."""
    se: float | None = None
    """Standard error of the difference."""
    ci: Interval | None = None
    """Of the difference, over new seeds and new examples."""
    p_value: float | None = None
    """Two-sided, of no difference."""
    detectable: float | None = None
    """The smallest true difference that this comparison, on its own, would have seen with a chance of 80 %."""
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


def compare(
    left: VariantScores,
    right: VariantScores,
    rng: np.random.Generator,
    clusters: ArrayLike | None = None,
    higher_is_better: bool = True,
    level: float = 0.95,
) -> Comparison:
    """Compare two variants, or a variant with one fixed model.

    The difference, its interval and ``p_value`` speak of new seeds and new examples, as the multi-bootstrap does (see
    :mod:`finetune.stats.multibootstrap`); ``clusters`` (examples,) holds an integer for each example where some belong
    together, and then whole clusters are what is new. Where a side has no contributions they speak of new seeds on
    these examples: Student's t. Seeds are paired by number where at least half of each side's are common, because a
    seed fixes the same data order and initialisation on both sides; the others are then left out.

    ``p_permutation`` stands beside it: it assumes neither normality nor a variance, but speaks of these examples only,
    and with five pairs cannot be below 0.0625, so it could never decide a small study, let alone a family of
    comparisons. ``rng`` draws its relabellings where there are too many to try all.
    """
    if left.seeds is None and right.seeds is not None:
        return _turned(compare(right, left, rng, clusters, higher_is_better, level))
    one, other, pairs = _paired(left, right)
    examples, clustered = _examples(one, other, clusters)
    improvement, scatter = _improvement(left, right, higher_is_better, level), _scatter(left, right, level)
    found = Comparison(
        n=len(one) if other.seeds is None else min(len(one), len(other)),
        level=level,
        method=_method(right, pairs, examples, clustered),
        pairs=pairs,
        examples=examples,
        groups=len(np.unique(np.asarray(clusters))) if clustered else None,
        probability_of_improvement=improvement[0],
        probability_of_improvement_ci=improvement[1],
        sd_ratio=scatter.ratio,
        sd_ratio_ci=scatter.ci,
        p_spread=scatter.p_value,
    )
    if not len(one) or not len(other):
        return replace(found, reason="a side has no run with this score")
    difference = float(one.scores.mean() - other.scores.mean())
    found = replace(found, difference=difference, p_mcnemar=_single_models(one, other))
    free = [side for side in (one, other) if side.seeds is not None]
    if not free:
        return _of_examples(found, one, other, clusters if clustered else None)
    if min(map(len, free)) < 2:
        return replace(found, reason="one seed says nothing about the spread of the difference; run at least two")
    permuted = _permute(one, other, pairs, rng)
    found = replace(found, p_permutation=permuted.p_value, p_permutation_smallest=permuted.smallest)
    noise = uncertainty(_sides(one, other, pairs, clusters if clustered else None, examples is not None))
    scale = float(max(np.abs(one.scores).max(), np.abs(other.scores).max()))
    # Equal differences, up to rounding, would give p = 0, from two seeds as from twenty: coarse scores tie by chance.
    if noise.se <= 1e-12 * scale:
        what = f"all {len(one)} differences are equal" if pairs or other.seeds is None else "no score differs"
        return replace(found, reason=f"{what}, so they say nothing about the spread, and no test can be made")
    return _decided(found, noise)


def _turned(found: Comparison) -> Comparison:
    """Turn a comparison round, one side of which is a fixed model."""
    better, share = found.probability_of_improvement, found.probability_of_improvement_ci
    return replace(
        found,
        difference=None if found.difference is None else -found.difference,
        ci=found.ci and (-found.ci[1], -found.ci[0]),
        probability_of_improvement=None if better is None else 1 - better,
        probability_of_improvement_ci=share and (1 - share[1], 1 - share[0]),
    )


def _of_examples(found: Comparison, one: VariantScores, other: VariantScores, clusters: ArrayLike | None) -> Comparison:
    """Compare two fixed models over new examples: Student's t of the examples' differences."""
    if found.examples is None:
        return replace(found, reason="two models that no seed changes, and no scores of single examples to compare")
    [matrix] = _sides(one, other, 0, clusters, True)
    count = matrix.shape[1]
    noise = Uncertainty(0.0, float(matrix.var(ddof=1)) / count, df_examples=count - 1)
    if noise.se == 0:
        return replace(found, reason="no example's score differs, so no test can be made")
    return replace(_decided(found, noise), method="Student's t over examples, of two models that no seed changes")


def _decided(found: Comparison, noise: Uncertainty) -> Comparison:
    assert found.difference is not None
    half = noise.half_width(found.level)
    return replace(
        found,
        se=noise.se,
        ci=(found.difference - half, found.difference + half),
        p_value=noise.p_value(found.difference),
        detectable=noise.detectable(found.level, POWER),
    )


def _paired(left: VariantScores, right: VariantScores) -> tuple[VariantScores, VariantScores, int]:
    """Pair both sides by common seeds in one order, and count them; or leave both as they are, with 0."""
    if right.seeds is None:
        return left, right, 0
    assert left.seeds is not None, "a fixed model stands on the right"
    common = sorted(set(left.seeds) & set(right.seeds))
    if not common or 2 * len(common) < max(len(left), len(right)):
        return left, right, 0
    return left.pick(common), right.pick(common), len(common)


def _examples(one: VariantScores, other: VariantScores, clusters: ArrayLike | None) -> tuple[int | None, bool]:
    """Count the examples that can be resampled, None for none; and tell whether in clusters."""
    if one.contributions is None or other.contributions is None:
        return None, False
    examples = one.contributions.shape[1]
    assert other.contributions.shape[1] == examples, "both sides have to be scored on the same examples"
    if clusters is not None and len(np.unique(np.asarray(clusters))) < 2:
        return None, False
    return (examples, clusters is not None) if examples > 1 else (None, False)


def _sides(
    one: VariantScores, other: VariantScores, pairs: int, clusters: ArrayLike | None, examples: bool
) -> list[NDArray[np.float64]]:
    """Give what :func:`uncertainty` takes: the differences, or each side for itself where seeds are not paired."""
    lefts, rights = one.rows(examples), other.rows(examples)
    matrices = [lefts - rights] if pairs or other.seeds is None else [lefts, -rights]
    return matrices if clusters is None else [by_cluster(matrix, clusters) for matrix in matrices]


def _method(right: VariantScores, pairs: int, examples: int | None, clustered: bool) -> str:
    if right.seeds is None:
        how = "seeds against one fixed model"
    else:
        how = "paired over common seeds" if pairs else "unpaired: too few seeds in common"
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


def _permute(one: VariantScores, other: VariantScores, pairs: int, rng: np.random.Generator) -> Permutation:
    if pairs or other.seeds is None:
        return sign_flips(one.scores - other.scores, rng)
    return relabellings(one.scores, other.scores, rng)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of one family by Holm's step-down (1979), in their order. None stays None, uncounted."""
    tested = [index for index, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(tested, key=lambda index: p_values[index] or 0.0)):
        largest = max(largest, min(1.0, (len(tested) - rank) * (p_values[index] or 0.0)))
        adjusted[index] = largest
    return adjusted


def verdict(comparison: Comparison, p_adjusted: float | None, higher_is_better: bool = True) -> Verdict:
    """Decide whether ``left`` is better or worse than ``right``: only if adjusted p-value and interval agree on it."""
    if p_adjusted is None or comparison.ci is None or p_adjusted >= 1 - comparison.level:
        return "undecided"
    low, high = comparison.ci
    if low <= 0 <= high:
        return "undecided"
    return "better" if (low > 0) == higher_is_better else "worse"
