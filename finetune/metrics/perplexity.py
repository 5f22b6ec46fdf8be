"""Perplexity."""

from __future__ import annotations

from math import inf

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.sums import ratio_of_sums
from finetune.metrics.unit import Unit


@METRICS.register
class Perplexity(Metric):
    """The exponential of the mean loss of a token, over all examples together.

    Among so many equally likely tokens a model is as undecided (Jelinek et al. 1977). A masked model's is that of
    hidden tokens given all others, and no perplexity of texts; models with other tokenizers count other tokens.
    """

    name = "perplexity"
    unit = Unit("perplexity", decimals=2, bounds=(1.0, inf))
    higher_is_better = False
    columns = ("loss", "weight")

    def value(self, columns: Columns) -> float:
        """Compute exp of the loss."""
        return float(np.exp(np.sum(columns["loss"]) / np.sum(columns["weight"])))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds, from the loss's own contributions: the derivative of exp is exp."""
        losses, weights = (np.asarray(columns[name], dtype=float) for name in self.columns)
        found = ratio_of_sums(losses, weights)
        return np.asarray(self.value(columns) * (1 + found - found.mean()))
