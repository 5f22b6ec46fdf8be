"""Which source of randomness causes how much of a score's spread: crossed designs, and variance components from them.

A full crossing of k sources at q levels needs q^k runs. An orthogonal array of strength 2 needs q^2, whatever k: every
level of one source meets every level of another exactly once. Two runs then share at most one level, so an effect of
several levels together (an interaction) is another one in every run. If effects are random draws, as those of seeds
are, interactions of every order are therefore noise between runs that favours no source, and the estimates below are
unbiased with and without them. Sources: Rao 1947, "Factorial Experiments Derivable from Combinatorial Arrangements of
Arrays"; for what varies, Bouthillier et al. 2021, "Accounting for Variance in Machine Learning Benchmarks", section 2,
and Dodge et al. 2020, "Fine-Tuning Pretrained Language Models", section 4, who crosses initialisation with order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.stats.estimates import Interval

Floats = NDArray[np.float64]
Levels = Mapping[str, ArrayLike]
"""By source, the level (runs,) that each run has of it."""

INTERACTIONS = "interactions"
"""What is left to no source alone."""

DRAWS = 10_000
"""Of the generalised intervals: their ends are then exact to about a point of a share."""


def orthogonal_array(levels: int, factors: int) -> NDArray[np.int64]:
    """Give the levels 0 to q - 1 of each factor in each run, shape (q^2, factors), for q = ``levels`` in 2, 3, 4 or 5.

    In any two columns every pair of levels stands exactly once. Rows are the points (x, y) of the plane over the field
    of q elements, columns its lines' directions: x, y, x + y, x + 2y, ...: at most q + 1 of them (Bose & Bush 1952).
    """
    assert 1 <= factors <= levels + 1, f"{levels} levels can be crossed for at most {levels + 1} factors"
    plus, times = _field(levels)
    x, y = (axis.ravel() for axis in np.mgrid[:levels, :levels])
    columns = [x, y] + [plus[x, times[slope, y]] for slope in range(1, levels)]
    return np.stack(columns[:factors], axis=1)


def _field(order: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the tables (order, order) of addition and multiplication in the finite field of ``order`` elements."""
    numbers = np.arange(order)
    if order in (2, 3, 5):
        return np.add.outer(numbers, numbers) % order, np.multiply.outer(numbers, numbers) % order
    assert order == 4, "fields of 2, 3, 4 and 5 elements are there"
    # Elements are polynomials over {0, 1}, bits their coefficients, modulo x^2 + x + 1 (binary 111).
    left, right = np.meshgrid(numbers, numbers, indexing="ij")
    product = (left & 1) * right ^ (left >> 1) * (right << 1)
    return left ^ right, np.where(product & 4, product ^ 7, product)


def spare(levels: int, factors: int) -> int:
    """Count the degrees of freedom that a design of ``levels``^2 runs leaves for what no factor explains alone."""
    return levels**2 - 1 - factors * (levels - 1)


def variance_components(values: ArrayLike, levels: Levels) -> Floats:
    """Estimate variance components by moments, unbiased, shape (sources + 1, columns); the last row: interactions.

    ``values`` has shape (runs, columns), each column decomposed for itself, in units whose squares the components
    have. In a balanced design with r runs at each level, the mean square of a source has the expectation r * component
    + interactions, and that of the rest the interactions alone (Searle, Casella & McCulloch 1992, "Variance
    Components", chapter 4). An estimate may fall below zero by chance.
    """
    squares, freedom, each = _mean_squares(np.asarray(values, dtype=float), levels)
    assert freedom[-1] > 0, "no degree of freedom is left for the interactions: use more levels"
    rest = squares[-1]
    return np.vstack([(squares[:-1] - rest) / each[:, None], rest])


def _mean_squares(values: Floats, levels: Levels) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Mean squares (sources + 1, columns), their degrees of freedom, and how many runs each level of a source has."""
    centred = values - values.mean(axis=0)
    found, freedom, each, explained = [], [], [], []
    for source, column in levels.items():
        names, numbers = np.unique(np.asarray(column), return_inverse=True)
        members = numbers == np.arange(len(names))[:, None]  # (levels, runs)
        runs = members.sum(axis=1)
        assert len(names) > 1 and np.ptp(runs) == 0, f"'{source}' is not balanced: {runs.tolist()} runs at its levels"
        means = members @ centred / runs[0]
        explained.append(means[numbers])
        found.append(runs[0] * (means**2).sum(axis=0) / (len(names) - 1))
        freedom.append(len(names) - 1)
        each.append(float(runs[0]))
    left = centred - np.sum(explained, axis=0)
    freedom.append(len(values) - 1 - sum(freedom))
    found.append((left**2).sum(axis=0) / max(freedom[-1], 1))
    return np.stack(found), np.array(freedom), np.array(each)


@dataclass(frozen=True)
class Component:
    """The contribution of one source to the variance of a run's score; variances are in the score's unit, squared."""

    source: str
    freedom: int
    """Degrees of freedom that it is estimated from: few mean a wide interval."""
    estimate: float
    """Unbiased; may be below zero by chance."""
    variance: float
    """The estimate, or zero where it is below."""
    share: float | None
    """Of all variances together, 0 to 1; None where no two runs differ."""
    ci: Interval | None
    """Of the share."""
    noise: float | None
    """The part of the estimate that a test set of this size causes alone; None where it cannot be told by source."""

    @property
    def sd(self) -> float:
        """The SD of scores, were this the only source."""
        return float(self.variance**0.5)

    @property
    def clipped(self) -> bool:
        """Tell whether the estimate was below zero."""
        return self.estimate < 0

    @property
    def beyond_noise(self) -> float:
        """The variance without what the test set causes, as far as that is known."""
        return max(0.0, self.estimate - (self.noise or 0.0))

    def facts(self) -> dict[str, Any]:
        """In JSON's types."""
        return {**asdict(self), "sd": self.sd, "clipped": self.clipped}


@dataclass(frozen=True)
class Decomposition:
    """The spread of a score by source, from the runs of one crossed design."""

    runs: int
    mean: float
    sources: tuple[Component, ...]
    interactions: Component
    sd: float
    """Of a run for which everything is drawn anew, in the score's unit: from the sum of the unbiased estimates."""
    sd_ci: Interval | None
    noise: float | None
    """Variance that a test set of this size causes alone, in all; None where per-example scores do not say it."""
    level: float
    method: str
    reason: str | None = None

    @property
    def noise_share(self) -> float | None:
        """The share of all variance that the test set causes, 0 to 1."""
        return None if self.noise is None or self.sd == 0 else min(1.0, self.noise / self.sd**2)

    @property
    def largest(self) -> Component | None:
        """The source, or the interactions, with most of the variance that the test set does not cause."""
        most = max((*self.sources, self.interactions), key=lambda each: each.beyond_noise)
        return most if most.beyond_noise > 0 else None

    def facts(self) -> dict[str, Any]:
        """In JSON's types."""
        parts = {"sources": [part.facts() for part in self.sources], "interactions": self.interactions.facts()}
        return {**asdict(self), **parts, "noise_share": self.noise_share}


METHOD = (
    "variance components by the method of moments from an orthogonal array of strength 2; generalised intervals "
    "(Weerahandi 1993), which few levels make wide; estimates below zero are shown as zero"
)

ALIKE = "every run has the same score: there is no spread to decompose"


def decompose(
    scores: ArrayLike,
    levels: Levels,
    rng: np.random.Generator,
    examples: Sequence[ArrayLike] | None = None,
    same_examples: bool = True,
    level: float = 0.95,
) -> Decomposition:
    """The spread of ``scores`` (runs,) by source, and how much of it the test set causes.

    ``examples`` gives for each run its per-example scores, whose mean is the run's score. Where all runs were scored on
    the ``same_examples``, the test set's part is Jordan's (ICLR 2024, Theorem 2), source by source: with N examples, a
    component without it is N/(N-1) * (component of the mean - sum of the examples' components / N^2). Where each split
    has examples of its own, it is what drawing other examples does, in all: the mean over runs of var(examples) / N,
    an upper bound when the split is stratified or holds out much of the data. The intervals take it as known.

    Intervals are generalised ones: mean squares are scaled by draws of their chi-square distributions, and the shares
    of each draw clipped and taken. They assume normal effects. Simulated, those of 95 % cover shares in 94 to 98 % of
    designs (less for a share of exactly 1, the end of what there is), and the SD in 89 to 95 %. Raises AssertionError
    for an unbalanced design, or one without a degree of freedom for the interactions.
    """
    values = np.asarray(scores, dtype=float)
    assert values.ndim == 1 and np.isfinite(values).all(), "scores are one finite number per run"
    mean = float(values.mean())
    if np.ptp(values) <= 1e-12 * np.abs(values).max():  # rounding gives equal numbers a spread of 1e-17
        values = np.zeros(len(values))
    squares, freedom, each = _mean_squares(values[:, None], levels)
    estimates = variance_components(values[:, None], levels)[:, 0]
    estimates[np.abs(estimates) <= 1e-12 * squares.max()] = 0.0  # what rounding leaves of nothing
    clipped, total, spread = np.maximum(estimates, 0.0), max(0.0, float(estimates.sum())), np.ptp(values) > 0
    if spread:
        drawn, tails = _generalised(squares[:, 0], freedom, each, rng), [(1 - level) / 2, (1 + level) / 2]
        kept = np.maximum(drawn, 0.0)
        ends = np.quantile(kept / kept.sum(axis=0), tails, axis=1)
        low, high = np.sqrt(np.maximum(np.quantile(drawn.sum(axis=0), tails), 0.0))
    by_source, noise = _noise(estimates, levels, examples, same_examples)
    *sources, rest = (
        Component(
            source,
            int(freedom[place]),
            float(estimates[place]),
            float(clipped[place]),
            float(clipped[place] / clipped.sum()) if spread else None,
            (float(ends[0, place]), float(ends[1, place])) if spread else None,
            None if by_source is None else float(by_source[place]),
        )
        for place, source in enumerate([*levels, INTERACTIONS])
    )
    sd_ci, reason = ((float(low), float(high)), None) if spread else (None, ALIKE)
    return Decomposition(len(values), mean, tuple(sources), rest, total**0.5, sd_ci, noise, level, METHOD, reason)


def _generalised(squares: Floats, freedom: NDArray[np.int64], each: Floats, rng: np.random.Generator) -> Floats:
    """Draw (sources + 1, DRAWS) of the components' generalised pivotal quantities."""
    expected = (squares * freedom)[:, None] / rng.chisquare(freedom[:, None], (len(squares), DRAWS))
    return np.vstack([(expected[:-1] - expected[-1]) / each[:, None], expected[-1]])


def _noise(
    estimates: Floats, levels: Levels, examples: Sequence[ArrayLike] | None, same_examples: bool
) -> tuple[Floats | None, float | None]:
    """Estimate the variance that the test set causes: by source where that can be told, and in all."""
    if examples is None:
        return None, None
    rows = [np.asarray(row, dtype=float) for row in examples]
    if min(len(row) for row in rows) < 2:
        return None, None
    if not same_examples:
        return None, float(np.mean([row.var(ddof=1) / len(row) for row in rows]))
    matrix = np.stack(rows)
    count = matrix.shape[1]
    floors = variance_components(matrix, levels).sum(axis=1) / count**2
    found = estimates - count / (count - 1) * (estimates - floors)
    return found, max(0.0, float(found.sum()))
