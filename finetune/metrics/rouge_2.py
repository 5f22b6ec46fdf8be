"""ROUGE-2."""

from __future__ import annotations

from typing import ClassVar

from finetune.core.registry import METRICS
from finetune.metrics.rouge import Rouge
from finetune.metrics.unit import percent


@METRICS.register
class Rouge2(Rouge):
    """Pairs of neighbouring words that both texts have, F-measure, a mean over examples.

    Lin 2004, section 2, without a stemmer. A text of fewer than two words (runs of a-z and 0-9) has the score 0.
    """

    name = "rouge_2"
    kind: ClassVar[str] = "rouge2"
    unit = percent("ROUGE-2")
    hub: ClassVar = {"type": "rouge", "config": "rouge2"}
