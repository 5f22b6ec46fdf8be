"""Accuracy of saying whether there is an answer."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.core.answers import spans_in
from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, MeanMetric, Values
from finetune.metrics.unit import percent


@METRICS.register
class NoAnswerAccuracy(MeanMetric):
    """Share of questions of which it is rightly said whether the text answers them, whatever the answer.

    Over all questions. SQuAD's `NoAns_exact` is over those without an answer alone: the report has these by themselves.
    """

    name = "no_answer_accuracy"
    unit = percent("accuracy of no answer")
    hub: ClassVar = {"type": "accuracy"}
    right_or_wrong = True

    def per_example(self, columns: Columns) -> Values:
        """Compute 1.0 where prediction and reference both have an answer, or both have none, else 0.0."""
        pairs = zip(columns["prediction"], columns["reference"], strict=True)
        return np.array([float(bool(said) == bool(spans_in(wanted))) for said, wanted in pairs])
