"""chrF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.unit import Unit

NGRAMS = 6
"""Longest character n-gram."""


@METRICS.register
class ChrF(Metric):
    """Character n-gram F-score of all examples together, 0 to 100.

    Popović 2015: F2 over character 1- to 6-grams, counted over all examples, as sacrebleu does.
    """

    name = "chrf"
    unit = Unit("chrF", decimals=1, point=1.0, bounds=(0.0, 100.0))

    def value(self, columns: Columns) -> float:
        """Compute the corpus score, by sacrebleu."""
        from sacrebleu.metrics import CHRF

        return float(CHRF().corpus_score(columns["prediction"], [columns["reference"]]).score)

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds to F2 of the mean precision and mean recall, times 100.

        Means are over the n-gram orders that occur on both sides.
        """
        prediction, reference = columns["prediction"], columns["reference"]
        said, wanted, matched = np.moveaxis(ngram_counts(prediction, reference), 2, 0).astype(float)
        used = (said.sum(axis=0) > 0) & (wanted.sum(axis=0) > 0)
        if not matched[:, used].sum():
            return np.zeros(len(prediction))
        sums = [counts[:, used].sum(axis=0) for counts in (said, wanted, matched)]
        precision, recall = sums[2] / sums[0], sums[2] / sums[1]
        change_p = ((matched[:, used] - precision * said[:, used]) / sums[0]).mean(axis=1)
        change_r = ((matched[:, used] - recall * wanted[:, used]) / sums[1]).mean(axis=1)
        p, r = precision.mean(), recall.mean()
        change = (5 * r**2 * change_p + 20 * p**2 * change_r) / (4 * p + r) ** 2
        return np.asarray(100 * (5 * p * r / (4 * p + r) + len(prediction) * change))


def ngram_counts(prediction: Sequence[str], reference: Sequence[str]) -> NDArray[np.int64]:
    """Character 1- to 6-grams without white space, (examples, 6, 3): predicted, in the reference, and in both.

    As chrF counts them (Popović 2015): those in both as often as in the side with fewer, and those predicted only
    where the reference is long enough to have any of this order.
    """
    n = len(prediction)
    texts = ["".join(text.split()) for text in (*prediction, *reference)]
    owner = np.repeat(np.arange(2 * n), [len(text) for text in texts])
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    letters, distinct = _numbered(points.astype(np.int64))
    counts = np.zeros((n, NGRAMS, 3), dtype=np.int64)
    start, gram = np.arange(len(letters)), owner % max(n, 1)  # an n-gram's number is one within its example
    for order in range(NGRAMS):
        within = start + order < len(letters)
        within[within] = owner[start[within] + order] == owner[start[within]]
        start, gram = start[within], gram[within]
        gram, total = _numbered(gram * distinct + letters[start + order])
        predicted = owner[start] < n
        example = np.zeros(total, dtype=np.int64)
        example[gram] = owner[start] % max(n, 1)
        sides = [np.bincount(gram[side], minlength=total) for side in (predicted, ~predicted)]
        for column, times in enumerate((*sides, np.minimum(*sides))):
            counts[:, order, column] = np.bincount(example, weights=times, minlength=n)
    counts[:, :, 0] *= counts[:, :, 1] > 0
    return counts


def _numbered(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Equal values get equal numbers from 0 on, and how many different ones there are."""
    distinct, numbers = np.unique(values, return_inverse=True)
    return numbers, len(distinct)
