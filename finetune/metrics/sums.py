"""Metrics that are ratios of sums over examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ratio_of_sums(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute what each example adds to the ratio of the sums of ``above`` and ``below``, both (examples,): θ + n dθ/dw
    (see :meth:`finetune.metrics.base.Metric.contributions`), whose mean is θ. All are 0 where nothing is below."""
    total = below.sum()
    if not total:
        return np.zeros(len(below))
    ratio = above.sum() / total
    return np.asarray(ratio + len(below) * (above - ratio * below) / total)
