"""How far a classifier's probabilities are from what happened: the parts of Brier score and calibration error.

Shapes: K labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.metrics.base import Columns, codes

BINS = 15
"""Bins of the calibration error, as in Guo et al. (2017)."""

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


def squares_of(probabilities: Floats, right: NDArray[np.integer]) -> Floats:
    """Compute the squared distance of each row of ``probabilities`` (examples, K) from the corner of the label whose
    number is ``right`` (examples,): (examples,), in [0, 2]. At -1 none of the labels is right, and the corner is that
    of one more, whose probability is 0."""
    chosen = np.where(right < 0, 0.0, probabilities[np.arange(len(probabilities)), right])
    return np.asarray((probabilities**2).sum(axis=1) - 2 * chosen + 1)


def stored(columns: Columns) -> tuple[Floats, NDArray[np.intp]]:
    """Read probabilities (examples, K) as the store keeps them, in float32, so that bins are the same before and after;
    and the number of each reference among `labels` (examples,), -1 where it is none of them."""
    probabilities = np.asarray(columns["probabilities"], np.float32).astype(float)
    labels = np.array(columns["labels"], dtype=object)
    order = np.argsort(labels, kind="stable")
    places = codes(np.array(columns["reference"], dtype=object), labels[order])
    return probabilities, np.append(order, -1)[places]
