"""What choosing among seeds by their validation scores is worth elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def expected_chosen(validation: ArrayLike, scores: ArrayLike, higher_is_better: bool = True) -> NDArray[np.float64]:
    """Estimate the score of the seed that is chosen by validation from 1, 2, ... n seeds, (n,), in the unit of
    ``scores``.

    ``validation`` (n,) are what is chosen by, where higher is better if ``higher_is_better``; ``scores`` (n,) are what
    the same seeds score elsewhere, say on the test set. The first of what is returned is their mean, as of a seed
    taken at random. As :func:`~finetune.stats.expected_best` (Dodge et al., EMNLP 2019, section 3.1): exact for draws
    with replacement from the n pairs, by the chance (i/n)^k - ((i - 1)/n)^k that the i-th best by validation is the
    best of k draws. Seeds that are alike by validation share their chance. Raises ValueError for numbers that are not
    finite; of no seeds it is empty.
    """
    by, values = np.asarray(validation, dtype=float), np.asarray(scores, dtype=float)
    if by.shape != values.shape or by.ndim != 1 or not (np.isfinite(by).all() and np.isfinite(values).all()):
        raise ValueError("expected one finite validation score and one finite score for each seed")
    n = len(values)
    levels, place = np.unique(by if higher_is_better else -by, return_inverse=True)
    counts = np.bincount(place, minlength=len(levels))
    ends = np.concatenate([[0], np.cumsum(counts)]) / max(n, 1)
    means = np.bincount(place, weights=values, minlength=len(levels)) / counts
    found: NDArray[np.float64] = np.diff(ends ** np.arange(1, n + 1)[:, None], axis=1) @ means
    return found
