"""The mean of several models' predictions, from their prediction stores alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from finetune.evaluate import metrics
from finetune.evaluate.store import Predictions
from finetune.tasks.judged import likeliest


def ensemble(
    stores: Sequence[Predictions], example_score: str, choose: Callable[[np.ndarray], int] = likeliest
) -> Predictions:
    """Predict with several models together: the label that the mean of their probabilities speaks for, example by
    example.

    ``stores`` are at least one, of the same examples, with probabilities; ``example_score`` names the metric of the
    `score` column. ``choose`` gives the number of a label for the probabilities (K,) of all. The loss is the negative
    log of the mean probability of the right label, nats. Raises ValueError when the stores are of different examples or
    labels, or have no probabilities.
    """
    first, *others = stores
    if first.probabilities is None or first.loss is None:
        raise ValueError("these predictions have no probabilities, of which there could be a mean")
    if any(_about(other) != _about(first) for other in others):
        raise ValueError("these predictions are of different examples or labels")
    # In float64, in which equal float32 numbers have themselves as their mean.
    probabilities = np.mean([np.asarray(store.probabilities, np.float64) for store in stores], axis=0)
    prediction = [first.labels[choose(row)] for row in probabilities]
    return Predictions(
        example=first.example,
        prediction=prediction,
        reference=first.reference,
        score=metrics.scores_of(example_score, prediction, first.reference),
        loss=_mean_likelihood(np.stack([np.asarray(store.loss, np.float64) for store in stores])),
        weight=first.weight,
        probabilities=probabilities.astype(np.float32),
        labels=first.labels,
    )


def _about(store: Predictions) -> tuple[list[int], list[str], tuple[str, ...]]:
    return store.example.tolist(), store.reference, store.labels


def _mean_likelihood(losses: np.ndarray) -> np.ndarray:
    """Compute the negative log (n,) of the mean of likelihoods whose negative logs are ``losses`` (models, n).

    From the losses, since a likelihood may be too small for the float32 that probabilities are stored in.
    """
    smallest = losses.min(axis=0)
    return smallest - np.log(np.exp(smallest - losses).mean(axis=0))
