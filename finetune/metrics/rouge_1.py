"""ROUGE-1."""

from __future__ import annotations

from typing import ClassVar

from finetune.core.registry import METRICS
from finetune.metrics.rouge import Rouge
from finetune.metrics.unit import percent


@METRICS.register
class Rouge1(Rouge):
    """Words that both texts have, F-measure, a mean over examples.

    Lin 2004, section 2, without a stemmer. Words are runs of a-z and 0-9 after lower-casing.
    """

    name = "rouge_1"
    kind: ClassVar[str] = "rouge1"
    unit = percent("ROUGE-1")
    hub: ClassVar = {"type": "rouge", "config": "rouge1"}
