"""Are a classifier's probabilities what they say? Proper scores, calibration error and temperature of one run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from finetune.metrics.calibrated import BINS, Bins, by_mass, by_width, squares_of
from finetune.metrics.nll import over_counted

__all__ = ["BINS", "Bins", "Calibration", "by_mass", "by_width", "calibration"]

HOTTEST = 20.0
"""Temperatures are looked for between one over this and this; a fit that wants to go beyond ends there."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """One run's calibration on one held-out set. Losses in nats, errors as fractions of one."""

    nll: float | None
    """Mean negative log-likelihood of the right label, over examples whose right label is one of those that the model
    knows; None where there are none."""
    brier: float
    """Mean squared distance of the probabilities from the right label's corner, in [0, 2] (Brier 1950)."""
    ece: float
    """Expected calibration error over :data:`BINS` bins of equal width."""
    ece_noise: float
    """What `ece` would be on average were the model perfectly calibrated."""
    ece_equal_mass: float
    """Expected calibration error over as many bins with equally many examples (Nixon et al. 2019)."""
    ece_equal_mass_noise: float
    """What `ece_equal_mass` would be on average were the model perfectly calibrated."""
    temperature: float | None
    """Above one: overconfident. None where there is one such example only, as is the next."""
    nll_scaled: float | None
    """`nll` after temperature scaling."""
    bins: Bins
    """Those of `ece`."""
    by_example: dict[str, Floats]
    """What each example adds to `nll`, `brier`, `ece` and `ece_equal_mass`: (examples,), whose mean it is. For the two
    errors, where bins end and which sign a bin's gap has is taken as known."""


def calibration(
    probabilities: ArrayLike, right: ArrayLike, generator: np.random.Generator, loss: ArrayLike | None = None
) -> Calibration:
    """Every measure at once, of ``probabilities`` (examples, labels) and the ``right`` labels' numbers (examples,); -1
    is a label that has no probability, and is never right.

    ``loss`` (examples,), nats, is the negative log of the right label's probability where it is known more precisely
    than the probability itself; ``generator`` draws the halves of :func:`scaled`. No examples raise AssertionError.
    """
    matrix, target = np.asarray(probabilities, dtype=float), np.asarray(right)
    assert matrix.ndim == 2 and len(matrix) and target.shape == (len(matrix),), "expected (examples, labels) and rows"
    known = target >= 0
    chosen = matrix[np.arange(len(matrix)), target]
    losses = -np.log(_positive(chosen)) if loss is None else np.asarray(loss, dtype=float)
    nll = over_counted(losses, known) if known.any() else None
    confidence, correct = matrix.max(axis=1), matrix.argmax(axis=1) == target
    width, mass = by_width(confidence, correct), by_mass(confidence, correct)
    temperature, nll_scaled = None, None
    if known.sum() > 1:
        temperature, nll_scaled = scaled(margins(matrix[known], target[known], losses[known]), generator)
    squares = squares_of(matrix, target)
    return Calibration(
        nll=None if nll is None else float(nll.mean()),
        brier=float(squares.mean()),
        ece=width.error,
        ece_noise=width.noise,
        ece_equal_mass=mass.error,
        ece_equal_mass_noise=mass.noise,
        temperature=temperature,
        nll_scaled=nll_scaled,
        bins=width,
        by_example={
            **({} if nll is None else {"nll": nll}),
            "brier": squares,
            "ece": width.gaps,
            "ece_equal_mass": mass.gaps,
        },
    )


def margins(probabilities: ArrayLike, right: ArrayLike, loss: ArrayLike) -> Floats:
    """Compute how much each wrong label's log-probability is above the right one's, (labels - 1, examples), nats.

    They are all that temperature scaling needs: the logits themselves are known up to a constant per example, which
    cancels. ``loss`` is the negative log-probability of the right label.
    """
    matrix, target = np.asarray(probabilities, dtype=float), np.asarray(right)
    wrong = np.arange(matrix.shape[1]) != target[:, None]
    others = matrix[wrong].reshape(len(matrix), -1)
    # Examples last, over which NumPy is several times faster where there are few labels.
    return np.ascontiguousarray(np.log(_positive(others)).T) + np.asarray(loss, dtype=float)


def scaled(margin: Floats, generator: np.random.Generator) -> tuple[float, float]:
    """Fit the temperature to ``margin`` (labels - 1, examples >= 2), and give it with the mean loss at it.

    Temperature scaling (Guo et al. 2017) divides the logits by one number, fitted on data that is not scored. Here
    each random half of the examples is scored at the temperature that suits the other half, so the loss is honest
    though the held-out set alone is known; the temperature is the geometric mean of the two.
    """
    examples = margin.shape[1]
    assert examples > 1, "one example cannot be halved"
    order, middle = generator.permutation(examples), examples // 2
    halves = margin.take(order[:middle], axis=1), margin.take(order[middle:], axis=1)
    fitted = [best_temperature(half) for half in halves]
    total = sum(half.shape[1] * mean_loss(half, other) for half, other in zip(halves, fitted[::-1], strict=True))
    return float(np.sqrt(fitted[0] * fitted[1])), float(total / examples)


def best_temperature(margin: Floats) -> float:
    """The temperature with the smallest mean loss; one where all are equally good, as with uniform probabilities.

    The loss is convex in one over the temperature, so the root of its slope is the only minimum. It has none where
    every example of ``margin`` is predicted rightly (colder is better without end) or badly: the end of the range then.
    """
    end = float(np.log(HOTTEST))
    rises, falls = _slope(-end, margin) >= 0, _slope(end, margin) <= 0
    if rises or falls:
        return 1.0 if rises and falls else HOTTEST if rises else 1 / HOTTEST
    return float(np.exp(-brentq(_slope, -end, end, args=(margin,), xtol=1e-4)))


def mean_loss(margin: Floats, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood, nats, of the right labels when every logit is divided by ``temperature``."""
    top, _, total = _weights(margin / temperature)
    return float(np.mean(top + np.log(total)))


def _slope(log_inverse: float, margin: Floats) -> float:
    """Compute the slope of the mean loss in the inverse temperature, whose logarithm is given."""
    _, weights, total = _weights(margin * np.exp(log_inverse))
    return float(np.mean((margin * weights).sum(axis=0) / total))


def _weights(margin: Floats) -> tuple[Floats, Floats, Floats]:
    """Give by example the largest logit over the right label's, and softmax numerators and sum relative to it."""
    top = np.maximum(margin.max(axis=0), 0)
    weights = np.exp(margin - top)
    return top, weights, weights.sum(axis=0) + np.exp(-top)


def _positive(probabilities: Floats) -> Floats:
    """Replace the zeros to which small probabilities were rounded when they were stored as float32."""
    return np.maximum(probabilities, np.finfo(np.float32).tiny)
