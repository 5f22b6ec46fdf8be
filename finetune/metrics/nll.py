"""Negative log-likelihood of an example."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import ArrayLike

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.unit import Unit


@METRICS.register
class NLL(Metric):
    """Negative log-likelihood of the reference, a mean over examples, in nats.

    Examples of weight 0 are left out: their right answer is none that the model could give, and it has no likelihood.
    """

    name = "nll"
    unit = Unit("NLL", bounds=(0.0, inf))
    higher_is_better = False
    columns = ("loss", "weight")

    def value(self, columns: Columns) -> float:
        """Compute the mean over the examples that have a likelihood; no number where none has."""
        found = over_counted(columns["loss"], _counted(columns))
        return float(found.mean())

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds: the stored losses, where all count; see :func:`over_counted`."""
        return over_counted(columns["loss"], _counted(columns))


def _counted(columns: Columns) -> np.ndarray:
    return np.asarray(columns["weight"], float) > 0


def over_counted(losses: ArrayLike, counted: np.ndarray) -> Values:
    """Compute what each example adds to the mean of ``losses`` (examples,) over those that are ``counted`` (examples,):
    the loss where all are; where some are not, with θ the mean of c of n examples, θ + n/c (loss - θ), and θ for those
    that are not. All are no numbers where none is counted."""
    values = np.array(losses, dtype=float)
    if counted.all():
        return values
    if not counted.any():
        return np.full(len(values), np.nan)
    mean = values[counted].mean()
    return np.where(counted, mean + len(values) / counted.sum() * (values - mean), mean)
