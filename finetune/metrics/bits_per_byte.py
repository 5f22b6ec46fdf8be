"""Bits per byte."""

from __future__ import annotations

from math import inf, log

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.sums import ratio_of_sums
from finetune.metrics.unit import Unit


@METRICS.register
class BitsPerByte(Metric):
    """Negative log-likelihood of a byte of text (UTF-8), over all examples together, in bits.

    The sum of all losses over ln 2 times the bytes that were predicted (Gao et al. 2020, "The Pile", section 3.1): the
    same for models with different tokenizers. A masked model's is of hidden words given all others.
    """

    name = "bits_per_byte"
    unit = Unit("bits per byte", bounds=(0.0, inf))
    higher_is_better = False
    columns = ("loss", "bytes")

    def value(self, columns: Columns) -> float:
        """Compute the ratio of sums."""
        return float(np.sum(columns["loss"]) / (np.sum(columns["bytes"]) * log(2)))

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds to the ratio Σ loss / (ln 2 · Σ bytes)."""
        losses, counts = np.asarray(columns["loss"], float) / log(2), np.asarray(columns["bytes"], float)
        return ratio_of_sums(losses, counts)
