"""A linear head solved by ridge regression on frozen features, for targets that are numbers.

Minimises  |y - x W - b|^2 + penalty |W|^2  in closed form (Hoerl & Kennard 1970, "Ridge Regression"); the intercept b
is not penalised. The penalty, and which vectors the head sees, are those with the least squared error when each
training example is left out in turn, which the solution for all of them gives as well: the error of example i is its
residual over 1 - h_i, where h_i is its leverage (Allen 1974, "The relationship between variable selection and data
augmentation and a method for prediction"). The penalties are scikit-learn's alpha. Shapes: N examples, F features, D
axes, K numbers for each example, P penalties.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from finetune.core.runtime import Runtime
from finetune.tasks.baselines.numbers import PENALTIES
from finetune.train.features import room, scaled
from finetune.train.logistic import ROOM, Axes
from finetune.train.probe import Probe


def fit_ridge(
    features: Mapping[str, torch.Tensor],
    normalise: bool | None,
    targets: Sequence[Any],
    intercept: bool,
    runtime: Runtime,
    familiar: bool = False,
) -> Probe:
    """Fit the best head to ``features``, by mode (N, F), and ``targets``, (N,) numbers or (N, K).

    ``normalise`` None: as leaving out examples prefers. ``familiar``: the features have been learnt from these very
    examples, and leaving any out would tell nothing: the penalty is scikit-learn's default.
    """
    begun, wanted = time.perf_counter(), torch.as_tensor(targets, dtype=torch.float64).reshape(len(targets), -1)
    tried: list[dict[str, Any]] = []
    best, axes = None, None
    for mode, vectors in features.items():
        for normalised in (False, True) if normalise is None else (normalise,):
            seen = Axes.of(scaled(vectors, normalised), intercept, lambda size, dtype: room(size, dtype, runtime.cache))
            penalties = (1.0,) if familiar else PENALTIES
            errors = left_out(seen, wanted, penalties, intercept)
            number = int(errors.argmin())  # the first of them in a tie, with the strongest penalty
            found = {"pooling": mode, "normalise": normalised, "penalty": penalties[number]}
            tried.append({**found, "rmse": float(errors[number].sqrt())})
            if best is None or (tried[-1]["rmse"] < best["rmse"] and not familiar):
                best, axes = tried[-1], seen
    assert best is not None and axes is not None, "there is at least one mode"
    weights, biases = solved(axes, wanted, best["penalty"], intercept)
    facts = {
        "solver": "ridge",
        "penalty": best["penalty"],
        "folds": len(wanted),
        "steps": 1,
        "validated": {"rmse": best["rmse"]},
        "seconds": time.perf_counter() - begun,
        "tried": tried,
    }
    said = "; ".join(f"{one['pooling']}{', normalised' if one['normalise'] else ''} {one['rmse']:.3g}" for one in tried)
    why = f"as leaving out each training example in turn prefers (root mean squared errors: {said})"
    if familiar:
        why = "the first of those there are, as leaving out training examples would tell nothing"
    return Probe(weights, biases, best["normalise"], best["pooling"], facts, why)


def solved(axes: Axes, wanted: torch.Tensor, penalty: float, intercept: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve for ``wanted`` (N, K) under one ``penalty``: weights (K, F) and biases (K,)."""
    centre = _centre(wanted, intercept)
    places = axes.rows[:, :-1].T @ (wanted - centre) / (axes.squares[:-1] + penalty)[:, None]
    weights, biases = axes.plain(torch.cat([places, centre[None]])[None])
    return weights[0], biases[0]


def left_out(axes: Axes, wanted: torch.Tensor, penalties: Sequence[float], intercept: bool) -> torch.Tensor:
    """Compute for each of the ``penalties`` the mean squared error (P,) of ``wanted`` (N, K) when each example is left
    out in turn."""
    count, kinds = wanted.shape
    centre = _centre(wanted, intercept)
    shrunk = 1 / (axes.squares[:-1, None] + torch.tensor(list(penalties), dtype=torch.float64))  # (D, P)
    places = axes.rows[:, :-1].T @ (wanted - centre)
    every = (shrunk[:, :, None] * places[:, None, :]).reshape(len(places), -1)
    total = torch.zeros(len(penalties), dtype=torch.float64)
    size = max(1, ROOM // max(axes.rows.shape[1], every.shape[1]))
    for start in range(0, count, size):
        rows = axes.rows[start : start + size, :-1]
        residual = (wanted - centre)[start : start + size, None] - (rows @ every).view(len(rows), -1, kinds)
        kept = 1 - rows.square() @ shrunk - (1 / count if intercept else 0)
        total += (residual / kept.clamp(min=1e-12)[..., None]).square().sum((0, 2))
    return total / count


def _centre(wanted: torch.Tensor, intercept: bool) -> torch.Tensor:
    return wanted.mean(0) if intercept else wanted.new_zeros(wanted.shape[1])
