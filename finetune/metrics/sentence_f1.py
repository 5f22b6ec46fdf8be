"""Sentence F1."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.entities import counts
from finetune.metrics.unit import percent


@METRICS.register
class SentenceF1(MeanMetric):
    """Mean over examples of each one's own entity F1, which is 1 where no entity is wanted and none is said."""

    name = "sentence_f1"
    unit = percent("sentence F1")
    hub: ClassVar = {"type": "f1", "config": "seqeval by sentence"}

    def per_example(self, columns: Columns) -> Values:
        """Compute twice the entities found, by those said and those wanted together."""
        found, said, wanted = counts(columns).T
        return np.where(said + wanted > 0, 2 * found / np.maximum(said + wanted, 1), 1.0)
