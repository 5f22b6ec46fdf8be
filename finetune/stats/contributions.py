"""Every metric as one number per example, whose mean is the metric: what floors, bootstraps and clusters work on.

A metric that is a mean over examples has these numbers already. One that is a smooth function of sums over examples
gets them from its first-order expansion: with θ the metric of n examples, example i counts θ + n dθ/dwᵢ, where wᵢ is
its weight in all sums, at wᵢ = 1. These are the empirical influence values (Efron 1982, The Jackknife, the Bootstrap
and Other Resampling Plans, chapter 6: the infinitesimal jackknife). All functions here stay the same when all weights
are doubled, so the derivatives sum to zero, and the mean is θ exactly.

A first-order expansion needs some examples of each label. In simulations the variance that it gives macro F1 is right
within their error of 6 % for 300 examples of 2 to 20 labels, and 28 % too low for 77 labels with four examples each;
there the jackknife's pseudo-values, which leave a label out with its last example, are 49 % too high.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Contributions = NDArray[np.float64]

NGRAMS = 6
"""Longest character n-gram of chrF."""


LABELS = ("accuracy", "macro_f1", "mcc")
"""Metrics that look at texts only for being equal."""


def contributions(metric: str, columns: Mapping[str, Any]) -> Contributions | None:
    """What each example adds to ``metric`` for one run: (examples,) floats in its unit, whose mean is the run's score.

    ``columns`` are those of the prediction store: `prediction` and `reference` (lists of str), `score`, `loss`,
    `weight` and `margin` ((examples,) floats, or None). Metrics of :data:`LABELS` take equal numbers for equal texts as
    well, which is faster. None for a metric that is not one of ours, without examples,
    or without the columns it needs. `rouge_l` is read from `score`, where a task that answers in text keeps it: hold
    the mean against the run's score where a task could have kept something else.
    """
    if metric not in _METRICS:
        return None
    names, compute = _METRICS[metric]
    wanted = [columns.get(name) for name in names]
    if any(column is None or not len(column) for column in wanted):
        return None
    return compute(*wanted)


def columns_of(metric: str) -> tuple[str, ...]:
    """The columns of the prediction store that :func:`contributions` reads; none for a metric that is not ours."""
    return _METRICS[metric][0] if metric in _METRICS else ()


def _accuracy(prediction: Sequence[str], reference: Sequence[str]) -> Contributions:
    return (np.asarray(prediction) == np.asarray(reference)).astype(float)


def _exact_match(prediction: Sequence[str], reference: Sequence[str]) -> Contributions:
    return np.array([p.strip() == r.strip() for p, r in zip(prediction, reference, strict=True)], dtype=float)


def _as_stored(values: Any) -> Contributions:
    return np.array(values, dtype=float)


def _preferred(margin: Any) -> Contributions:
    return (np.asarray(margin, dtype=float) > 0).astype(float)


def _token_loss(loss: Any, weight: Any) -> Contributions:
    """A ratio of sums: Σ loss / Σ weight."""
    losses, weights = np.asarray(loss, dtype=float), np.asarray(weight, dtype=float)
    mean = losses.sum() / weights.sum()
    return mean + len(losses) * (losses - mean * weights) / weights.sum()


def _macro_f1(prediction: Sequence[str], reference: Sequence[str]) -> Contributions:
    """F1 = 2 hits / (true + predicted) by label, averaged over the labels that occur in the references."""
    labels = np.unique(reference)
    true, predicted = _codes(reference, labels), _codes(prediction, labels)
    hit = true == predicted
    support = np.bincount(true, minlength=len(labels))
    said = np.bincount(predicted, minlength=len(labels) + 1)[:-1]  # the last stands for all that is no reference
    counted = support + said
    f1 = 2 * np.bincount(true[hit], minlength=len(labels)) / counted
    slope = np.append(f1 / counted, 0.0)  # what one example more among the true, or the predicted, of a label costs
    change = (2 * hit / counted[true] - slope[true] - slope[predicted]) / len(labels)
    return f1.mean() + len(true) * change


def _mcc(prediction: Sequence[str], reference: Sequence[str]) -> Contributions:
    """Gorodkin's (2004) correlation, from hits and the counts of each label; 0 everywhere where it is undefined."""
    labels = np.unique([*reference, *prediction])
    true, predicted = _codes(reference, labels), _codes(prediction, labels)
    n, hit = float(len(true)), true == predicted
    support = np.bincount(true, minlength=len(labels)).astype(float)
    said = np.bincount(predicted, minlength=len(labels)).astype(float)
    covariance = hit.sum() * n - support @ said
    spread_said, spread_true = n**2 - said @ said, n**2 - support @ support
    if spread_said == 0 or spread_true == 0:
        return np.zeros(len(true))
    value = covariance / np.sqrt(spread_said * spread_true)
    change = (n * hit + hit.sum() - support[predicted] - said[true]) / np.sqrt(spread_said * spread_true)
    change -= value * ((n - said[predicted]) / spread_said + (n - support[true]) / spread_true)
    return value + n * change


def _chrf(prediction: Sequence[str], reference: Sequence[str]) -> Contributions:
    """F2 of the mean precision and mean recall over the n-gram orders that occur on both sides, times 100."""
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
    return 100 * (5 * p * r / (4 * p + r) + len(prediction) * change)


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


def _codes(values: ArrayLike, labels: NDArray[Any]) -> NDArray[np.intp]:
    """(n,) positions in ``labels``, which are sorted; for a value that is none of them their number."""
    wanted = np.asarray(values)
    places = np.searchsorted(labels, wanted)
    found = labels[np.minimum(places, len(labels) - 1)] == wanted
    return np.where(found, places, len(labels))


_METRICS: dict[str, tuple[tuple[str, ...], Callable[..., Contributions]]] = {
    "accuracy": (("prediction", "reference"), _accuracy),
    "macro_f1": (("prediction", "reference"), _macro_f1),
    "mcc": (("prediction", "reference"), _mcc),
    "nll": (("loss",), _as_stored),
    "rouge_l": (("score",), _as_stored),
    "chrf": (("prediction", "reference"), _chrf),
    "exact_match": (("prediction", "reference"), _exact_match),
    "loss": (("loss", "weight"), _token_loss),
    "preference_accuracy": (("margin",), _preferred),
}
"""By metric: the columns of the prediction store that it reads, and what makes contributions of them."""
