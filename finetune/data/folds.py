"""Folds for cross-validation inside the training examples."""

from __future__ import annotations

import numpy as np


def stratified_folds(classes: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Assign each example (N,) to the fold in which it is left out, of ``count``, from 0; the classes in each as in
    all; -1: none.

    The only example of a class is never left out: nothing could be learnt of it then.
    """
    found = np.full(len(classes), -1)
    start = 0
    for kind in np.unique(classes):
        own = random.permutation(np.flatnonzero(classes == kind))
        if len(own) > 1:
            found[own] = (start + np.arange(len(own))) % count
            start += len(own)  # so that small classes do not all begin with the same fold
    return found
