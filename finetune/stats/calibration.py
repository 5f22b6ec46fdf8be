"""Are a classifier's probabilities what they say? Proper scores, calibration error and temperature of one run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

BINS = 15
"""Bins of the calibration error, as in Guo et al. (2017)."""

HOTTEST = 20.0
"""Temperatures are looked for between one over this and this; a fit that wants to go beyond ends there."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """Examples grouped by confidence, the probability of the predicted label; of shape (bins,) where not said."""

    count: NDArray[np.int64]
    confidence: Floats
    """Mean confidence of the bin's examples; 0 in an empty bin, as are the next two."""
    accuracy: Floats
    """Share of them that is right."""
    doubt: Floats
    """Mean of confidence * (1 - confidence): the variance of being right, were the confidence true."""
    gaps: Floats
    """(examples,) what each adds to :attr:`error`, whose mean it is: its own gap, with the sign of its bin's."""

    @property
    def error(self) -> float:
        """Compute the expected calibration error: the gap of accuracy and confidence, by examples (Guo et al. 2017).

        It is biased upwards: the gap of a bin with few examples is never quite zero. See :attr:`noise`.
        """
        return float(self.count @ np.abs(self.accuracy - self.confidence) / self.count.sum())

    @property
    def noise(self) -> float:
        """Compute the mean of :attr:`error` that so few examples in so many bins cause where every confidence is true.

        The gap of a bin of m examples is then about normal with variance doubt / m, whose mean size is
        sqrt(2 / pi * doubt / m).
        """
        return float(np.sqrt(2 / np.pi * self.count * self.doubt).sum() / self.count.sum())


@dataclass(frozen=True)
class Calibration:
    """One run's calibration on one held-out set. Losses in nats, errors as fractions of one."""

    nll: float
    """Mean negative log-likelihood of the right label."""
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
    """Above one: overconfident. None where there is one example only, as is the next."""
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
    """Every measure at once, of ``probabilities`` (examples, labels) and the ``right`` labels' numbers (examples,).

    ``loss`` (examples,), nats, is the negative log of the right label's probability where it is known more precisely
    than the probability itself; ``generator`` draws the halves of :func:`scaled`. No examples raise AssertionError.
    """
    matrix, target = np.asarray(probabilities, dtype=float), np.asarray(right)
    assert matrix.ndim == 2 and len(matrix) and target.shape == (len(matrix),), "expected (examples, labels) and rows"
    chosen = matrix[np.arange(len(matrix)), target]
    losses = -np.log(_positive(chosen)) if loss is None else np.asarray(loss, dtype=float)
    squares = (matrix**2).sum(axis=1) - 2 * chosen + 1
    confidence, correct = matrix.max(axis=1), matrix.argmax(axis=1) == target
    width, mass = by_width(confidence, correct), by_mass(confidence, correct)
    temperature, nll_scaled = scaled(margins(matrix, target, losses), generator) if len(matrix) > 1 else (None, None)
    return Calibration(
        nll=float(losses.mean()),
        brier=float(squares.mean()),
        ece=width.error,
        ece_noise=width.noise,
        ece_equal_mass=mass.error,
        ece_equal_mass_noise=mass.noise,
        temperature=temperature,
        nll_scaled=nll_scaled,
        bins=width,
        by_example={"nll": losses, "brier": squares, "ece": width.gaps, "ece_equal_mass": mass.gaps},
    )


def by_width(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> Bins:
    """Make bins of equal width: (0, 1/bins], (1/bins, 2/bins] ... of ``confidence`` (examples,) in (0, 1]."""
    return binned(confidence, correct, np.arange(1, bins) / bins)


def by_mass(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> Bins:
    """Make bins with equally many examples, as far as equal confidences allow, which stay together."""
    return binned(confidence, correct, np.quantile(np.asarray(confidence, dtype=float), np.arange(1, bins) / bins))


def binned(confidence: ArrayLike, correct: ArrayLike, edges: ArrayLike) -> Bins:
    """Bin examples by ``confidence`` (examples,), a bin ending with each of ``edges`` and a last one above; ``correct``
    (examples,) is 1 or 0."""
    sure, hit = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    at, size = np.searchsorted(np.asarray(edges, dtype=float), sure, side="left"), np.size(edges) + 1
    count, gaps = np.bincount(at, minlength=size), sure - hit
    signs = np.where(np.bincount(at, gaps, minlength=size) < 0, -1.0, 1.0)

    def mean(values: Floats) -> Floats:
        return np.bincount(at, values, minlength=size) / np.maximum(count, 1)

    return Bins(count, mean(sure), mean(hit), mean(sure * (1 - sure)), signs[at] * gaps)


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
