"""Pairs of variants judged together: intervals, p-values and verdicts that survive many comparisons.

One mechanism makes interval, p-value, verdict and power of every pair: all that are judged together share one family
(:mod:`finetune.stats.families`), for which interval and p-value hold at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.stats.comparisons import Compared, Comparison, VariantScores, Verdict, difference_of
from finetune.stats.families import AllPairs, Family, Part, Sequential, Several
from finetune.stats.leading import Lead, Leader
from finetune.stats.multibootstrap import Uncertainty

POWER = 0.8
"""Chance of seeing a difference from which the smallest that could be seen is told."""

GUARD_OF_PAIRS, GUARD_OF_LEADER = -0.75, 20.0
"""Two variants may scatter 1 + GUARD_OF_PAIRS / seeds times as much as the average, or a leader and another
1 + GUARD_OF_LEADER / seeds^2 times, before their difference is given a larger variance than the pooled one; see
:func:`judge`. Found by simulation (scripts/simulate)."""

LEADER_FROM = 5
"""Seeds from which on the leader has a guard of its own: fewer show too little of how variants scatter."""

REMAINING = 1.7
"""How much the family's share falls with the part of its pairs that may err beside the leader's; by simulation."""


def compare(
    left: VariantScores,
    right: VariantScores,
    rng: np.random.Generator,
    clusters: ArrayLike | None = None,
    higher_is_better: bool = True,
    level: float = 0.95,
    overlap: float = 0.0,
) -> Comparison:
    """Compare two variants, or a variant with one fixed model, on their own; see :func:`difference_of`."""
    pair = difference_of(left, right, rng, clusters, higher_is_better, level, overlap)
    return judge([pair], Several())[0]


def judge(
    pairs: Sequence[Compared],
    family: Family,
    names: Sequence[tuple[str, str]] | None = None,
    means: Mapping[str, float] | None = None,
    higher_is_better: bool = True,
) -> list[Comparison]:
    """Judge pairs together: intervals and p-values that hold for all of them at once.

    Where ``family`` is that of all pairs, two more things come to help, and ``names`` of the pairs' sides and ``means``
    of the variants are needed:

    - The seeds' variance is pooled: the mean of all pairs', as the analysis of variance of seeds and variants has it
      (Tukey 1953). With five seeds a pair alone has four degrees of freedom, fifteen variants have 56. Variants do not
      all scatter alike, though, and few seeds cannot tell. So a pair whose two variants scatter more than the average
      gets a variance as many times larger than the pooled one, beyond a guard that simulations set. How much a variant
      scatters by itself, without what a seed does to all, is found from the variances of its pairs (Grubbs, "On
      estimating precision of measuring instruments", Journal of the American Statistical Association 1948).
    - Which variant is best is one question, not many: it is not best unless it beats *all* others, so that each of
      these may be tested on its own level (Berger, "Multiparameter hypothesis testing and acceptance sampling",
      Technometrics 1982: the intersection-union test). Where the leader passes, the smallest of its lower ends bounds
      its lead over each (Stefansson, Kim and Hsu, "On confidence sets in multiple comparisons", 1988); where it does
      not, the family decides its pairs like all others. Comparisons with the best (Hsu 1981) promise less: that the
      others are not better, which is true of equals as well.

    Two of many may share the lead while others are equal below, and then both tests may err: so each has only a share
    of the error (:func:`family_share`, :mod:`~finetune.stats.leading`). With these shares and guards, at most 6 % of
    all worlds of equals that were simulated have a false verdict (3 to 15 variants, 3 to 20 seeds; all equal with SDs
    alike or 1 : 3, or two ahead of the others with SDs alike). Where two share the lead and one of them scatters three
    times as much as the others it is more, up to 17 % with five seeds and fifteen variants: so few do not show it.

    What a pair could see is the power of the test that decides it; for the leader's pairs, that of their two tests.
    """
    level = pairs[0].found.level if pairs else 0.95
    if not isinstance(family, AllPairs) or family.variants < 3 or names is None or not means:
        return [_decided(pair.found, pair.noise, family) for pair in pairs]
    noises, of_leader = _pooled(pairs, names, _of_pairs), _pooled(pairs, names, _of_leader)
    family = Part(family, family_share(family.variants))
    judged = [_decided(pair.found, noise, family) for pair, noise in zip(pairs, noises, strict=True)]
    best = max(means, key=lambda name: means[name] if higher_is_better else -means[name])
    own = [place for place, sides in enumerate(names) if best in sides]
    if len(own) < len(means) - 1:
        return judged
    leads: dict[int, tuple[float, Lead]] = {}
    for place in own:
        alone, together, difference = of_leader[place], noises[place], pairs[place].found.difference
        if alone is None or together is None or difference is None:
            return judged
        leads[place] = difference, Lead(alone, Leader(len(own) + 1), together, family, level)
    for place, (_, lead) in leads.items():
        seen = lead.detectable(POWER)
        judged[place] = replace(judged[place], could_see=seen if np.isfinite(seen) else None)
    least = min(lead.least(difference) for difference, lead in leads.values())
    if least > 0:
        worst = max(lead.p_value(difference) for difference, lead in leads.values())
        for place in own:
            judged[place] = _leads(judged[place], least, worst)
    return judged


def family_share(variants: int) -> float:
    """Compute the share of the error that the test of all pairs may use: 1 with three variants, 0.66 with five.

    It errs beside that of the leader only where two share the lead and others are equal as well, whose pairs are
    (k - 2) (k - 3) / (k (k - 1)) of all: none of three variants', and three quarters of fifteen variants'.
    """
    return 1 / (1 + REMAINING * (variants - 2) * (variants - 3) / (variants * (variants - 1)))


def _of_pairs(runs: float) -> float:
    return 1 + GUARD_OF_PAIRS / runs


def _of_leader(runs: float) -> float:
    return 1 + GUARD_OF_LEADER / runs**2 if runs >= LEADER_FROM else _of_pairs(runs)


def _leads(found: Comparison, least: float, p_value: float) -> Comparison:
    """The comparison of a leader that beats all others, by ``least`` at least."""
    assert found.p_value_adjusted is not None and found.difference is not None
    low, high = found.ci or (-np.inf, np.inf)
    ci = (max(low, least), high) if found.difference > 0 else (low, min(high, -least))
    return replace(found, ci=ci, p_value_adjusted=min(found.p_value_adjusted, p_value))


def _pooled(
    pairs: Sequence[Compared], names: Sequence[tuple[str, str]], guard: Callable[[float], float]
) -> list[Uncertainty | None]:
    """Give each pair the mean of all pairs' variance over seeds, or more where it scatters beyond the guard."""
    alike = [(pair, pair.noise, sides) for pair, sides in zip(pairs, names, strict=True) if pair.noise and pair.share]
    variants = sorted({name for *_, sides in alike for name in sides})
    if len(variants) < 3 or len(alike) < len(variants):
        return [pair.noise for pair in pairs]
    scatter = np.array([noise.seeds / pair.share for pair, noise, _ in alike])
    runs, average = float(np.mean([pair.runs for pair, *_ in alike])), float(scatter.mean())
    own = _own_variances(scatter, [sides for *_, sides in alike])
    free = (len(variants) - 1) * (runs - 1)
    limit = guard(runs) * average
    noises: list[Uncertainty | None] = []
    for pair, (left, right) in zip(pairs, names, strict=True):
        if pair.noise is None or not pair.share:
            noises.append(pair.noise)
            continue
        more = max(1.0, (own[left] + own[right]) / limit) if limit > 0 else 1.0
        noises.append(replace(pair.noise, seeds=average * more * pair.share, df_seeds=free))
    return noises


def _own_variances(scatter: NDArray[np.float64], names: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Find the variances of single variants whose sums come closest to the variances of pairs, (pairs,)."""
    variants = sorted({name for sides in names for name in sides})
    sums = np.array([[float(name in sides) for name in variants] for sides in names])
    found = np.linalg.lstsq(sums, scatter, rcond=None)[0]
    return dict(zip(variants, np.maximum(found, 0.0).tolist(), strict=True))


def _decided(found: Comparison, noise: Uncertainty | None, family: Family) -> Comparison:
    if noise is None or found.difference is None:
        return found
    half, seen = noise.half_width(found.level, family), noise.detectable(found.level, POWER, family)
    endless = not np.isfinite(half)
    return replace(
        found,
        method=f"{found.method}; {family}",
        se=noise.se,
        ci=None if endless else (found.difference - half, found.difference + half),
        p_value=noise.p_value(found.difference),
        p_value_adjusted=noise.p_value(found.difference, family),
        could_see=None if endless else seen,
        reason="so few seeds give no interval with an end" if endless else found.reason,
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of one family by Holm's step-down (1979), in their order. None stays None, uncounted."""
    tested = [index for index, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(tested, key=lambda index: p_values[index] or 0.0)):
        largest = max(largest, min(1.0, (len(tested) - rank) * (p_values[index] or 0.0)))
        adjusted[index] = largest
    return adjusted


def verdict(comparison: Comparison, higher_is_better: bool = True) -> Verdict:
    """Tell whether ``left`` is better or worse than ``right``: only where the interval leaves zero out."""
    if comparison.ci is None or comparison.ci[0] <= 0 <= comparison.ci[1]:
        return "undecided"
    return "better" if (comparison.ci[0] > 0) == higher_is_better else "worse"


def family_of(count: int, all_pairs_of: int | None = None, sequential: bool = False) -> Family:
    """The family of ``count`` comparisons, which may be all pairs of so many variants."""
    if sequential:
        return Sequential(count)
    if all_pairs_of is not None and count == len(list(combinations(range(all_pairs_of), 2))):
        return AllPairs(all_pairs_of)
    return Several(count)
