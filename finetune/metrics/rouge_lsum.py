"""ROUGE-Lsum."""

from __future__ import annotations

from typing import ClassVar

from finetune.core.registry import METRICS
from finetune.metrics.rouge import Rouge
from finetune.metrics.unit import percent


@METRICS.register
class RougeLsum(Rouge):
    """Longest common word subsequences of lines with lines, F-measure, a mean over examples.

    Lin 2004, section 3.2 (summary level): sentences stand on lines of their own, and without line breaks it is
    ROUGE-L.
    """

    name = "rouge_lsum"
    kind: ClassVar[str] = "rougeLsum"
    unit = percent("ROUGE-Lsum")
    hub: ClassVar = {"type": "rouge", "config": "rougeLsum"}
