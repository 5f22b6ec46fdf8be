"""A linear head solved on frozen features: which vectors it sees and how strong its penalty is are chosen by
cross-validation inside the training examples; then it is fitted to all of them.

The penalties are those of scikit-learn's LogisticRegressionCV, whose C they are given in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from finetune.core.randomness import Streams
from finetune.core.runtime import Runtime
from finetune.data.folds import stratified_folds
from finetune.train.features import room, scaled
from finetune.train.logistic import Axes, Problems, solve

FOLDS = 5
STRENGTHS = tuple(float(value) for value in np.logspace(-4, 4, 10))
"""C, from the strongest penalty to the weakest."""

ROUGHLY = 1e-3
"""Tolerance in cross-validation: its scores do not feel more."""

TOGETHER = 1 << 18
"""Numbers in all solutions of the problems that are solved at once; the next, with weaker penalties, begin there."""


@dataclass(frozen=True)
class Probe:
    """A solved head."""

    weights: torch.Tensor
    """(K, F) float64."""
    biases: torch.Tensor
    """(K,) float64; zero without intercept."""
    normalised: bool
    mode: str
    facts: dict[str, Any]
    """For the run's result: how strong its penalty is, and what was tried."""
    why: str
    """Why it sees examples as it does, in words."""


@dataclass(frozen=True)
class Candidate:
    """One way to see the examples, judged by cross-validation with its best strength."""

    mode: str
    normalised: bool
    strength: float
    nll: float
    """Mean negative log-likelihood of the examples that were left out, nats."""
    accuracy: float

    @property
    def rank(self) -> tuple[float, float]:
        """Give the sort key of the best, which is lowest: most right; of few examples many tie, and the likelihood
        decides."""
        return -self.accuracy, self.nll


def fit(
    features: Mapping[str, torch.Tensor],
    normalise: bool | None,
    classes: Sequence[int],
    count: int,
    intercept: bool,
    streams: Streams,
    runtime: Runtime,
    weights: np.ndarray | None = None,
    familiar: bool = False,
) -> Probe:
    """Fit the best head to ``features``, by mode (N, F), and the right ``classes`` (N,) of ``count``.

    ``normalise`` None: as cross-validation prefers. Folds are drawn from the stream `split`. ``familiar``: the features
    have been learnt from these very examples, and leaving some out would tell nothing. Each example's loss counts
    as ``weights`` (N,) say, and 1 where it is left out, as in scikit-learn; None: 1 everywhere.
    """
    begun, right = time.perf_counter(), torch.as_tensor(classes)
    counts = torch.ones(len(right)) if weights is None else torch.from_numpy(weights)
    parts = stratified_folds(np.asarray(classes), FOLDS, streams.numpy("split", 0, 1))
    parts = np.full_like(parts, -1) if familiar else parts
    tried, best, axes = list[Candidate](), None, None
    for mode, vectors in features.items():
        for normalised in (False, True) if normalise is None else (normalise,):
            seen = Axes.of(scaled(vectors, normalised), intercept, lambda size, dtype: room(size, dtype, runtime.cache))
            for strength, nll, accuracy in _validated(seen, right, count, parts, counts):
                found = Candidate(mode, normalised, strength, nll, accuracy)
                tried.append(found)
                if best is None or found.rank < best.rank:
                    best, axes = found, seen
    assert best is not None and axes is not None, "there is at least one mode"
    solution, steps = solve(Problems(axes, right, count, counts[None], torch.tensor([best.strength]).double()))
    solved, biases = axes.plain(solution)
    facts = {
        "solver": "lbfgs",
        "strength": best.strength,
        "folds": len(set(parts.tolist()) - {-1}),
        "steps": steps,
        "validated": {"nll": best.nll, "accuracy": best.accuracy},
        "seconds": time.perf_counter() - begun,
    }
    ways = _summary(tried)
    said = [f"{one['pooling']}{', normalised' if one['normalise'] else ''} {one['accuracy']:.1%}" for one in ways]
    why = f"as cross-validation on the training examples prefers ({'; '.join(said)} right)"
    if not facts["folds"]:
        why = "the first of those there are, as leaving out training examples would tell nothing"
    return Probe(solved[0], biases[0], best.normalised, best.mode, facts | {"tried": ways}, why)


def _validated(
    axes: Axes, right: torch.Tensor, count: int, parts: np.ndarray, counts: torch.Tensor
) -> Iterator[tuple[float, float, float]]:
    """Give each strength with its mean negative log-likelihood and accuracy over the examples left out."""
    numbers = sorted(set(parts.tolist()) - {-1})
    if not numbers:  # nothing can be left out: scikit-learn's default is as good a choice as any
        yield 1.0, 0.0, 0.0
        return
    left = torch.from_numpy(np.stack([parts == number for number in numbers]))
    share = left.sum(1).double() / left.sum()
    size = max(1, TOGETHER // (len(numbers) * axes.rows.shape[1] * count))
    start: torch.Tensor | None = None
    for first in range(0, len(STRENGTHS), size):
        some = STRENGTHS[first : first + size]
        strengths = torch.tensor(some, dtype=torch.float64).repeat_interleave(len(numbers))
        problems = Problems(axes, right, count, (~left * counts).repeat(len(some), 1), strengths)
        solutions, _ = solve(problems, None if start is None else start.repeat(len(some), 1, 1), ROUGHLY)
        start = solutions[-len(numbers) :]
        nll, accuracy = problems.losses(solutions, left.repeat(len(some), 1))
        for number, strength in enumerate(some):
            own = slice(number * len(numbers), (number + 1) * len(numbers))
            yield strength, float(nll[own] @ share), float(accuracy[own] @ share)


def _summary(tried: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Give the best of each way to see the examples."""
    ways = dict.fromkeys((one.mode, one.normalised) for one in tried)
    best = [min((one for one in tried if (one.mode, one.normalised) == way), key=lambda one: one.rank) for way in ways]
    return [
        {
            "pooling": one.mode,
            "normalise": one.normalised,
            "strength": one.strength,
            "nll": one.nll,
            "accuracy": one.accuracy,
        }
        for one in best
    ]
