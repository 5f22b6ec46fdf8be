"""What the ROUGE metrics have in common (Lin 2004), as rouge-score computes them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.metrics.base import Columns, MeanMetric, Values


class Rouge(MeanMetric):
    """An F-measure of words or runs of words that two texts share, a mean over examples, without a stemmer."""

    kind: ClassVar[str]
    """rouge-score's name of it."""

    def per_example(self, columns: Columns) -> Values:
        """Compute the F-measures, in [0, 1]."""
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([self.kind], use_stemmer=False)
        pairs = zip(columns["prediction"], columns["reference"], strict=True)
        # The scorer gives the integer 0 where nothing matches.
        return np.array([scorer.score(wanted, said)[self.kind].fmeasure for said, wanted in pairs], dtype=float)
