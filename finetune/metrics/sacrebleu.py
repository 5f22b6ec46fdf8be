"""BLEU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from finetune.core.registry import METRICS
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.unit import Unit

NGRAMS = 4
"""Longest n-gram, in words."""


@METRICS.register
class SacreBleu(Metric):
    """BLEU of all examples together, 0 to 100, as sacrebleu computes it.

    Papineni et al. 2002; words and smoothing (exponential, of orders without a match) as in Post 2018, "A Call for
    Clarity in Reporting BLEU Scores": signature `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp`.
    """

    name = "sacrebleu"
    unit = Unit("BLEU", decimals=1, point=1.0, bounds=(0.0, 100.0))
    hub: ClassVar = {"type": "bleu"}

    def value(self, columns: Columns) -> float:
        """Compute the corpus score, by sacrebleu; its rounding may exceed 100."""
        from sacrebleu.metrics import BLEU

        return min(float(BLEU().corpus_score(columns["prediction"], [columns["reference"]]).score), 100.0)

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds to the geometric mean of the precisions times the brevity penalty.

        An order without any match has a smoothed precision, 1 / (2^k · its n-grams), which falls with the number of
        examples: here that number stays, as it does when examples are resampled. Where an order has no n-grams at all
        the score is 0.
        """
        matched, said, lengths = word_counts(columns["prediction"], columns["reference"])
        value, n = self.value(columns), len(lengths)
        if not value:
            return np.zeros(n)
        sums, totals = matched.sum(axis=0), said.sum(axis=0)
        # d log precision: of a smoothed one only the denominator moves.
        change = np.where(sums > 0, matched / np.maximum(sums, 1), 0) - said / totals
        change = change.mean(axis=1)
        whole, wanted = lengths.sum(axis=0)
        if whole < wanted:  # exp(1 - wanted / whole)
            change = change + wanted * lengths[:, 0] / whole**2 - lengths[:, 1] / whole
        change = change - change.mean()
        return np.asarray(value * (1 + n * change))


def word_counts(
    prediction: Sequence[str], reference: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Count n-grams of 1 to 4 words: (examples, 4) in both texts and predicted, and words of the two, (examples, 2)."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    split = Tokenizer13a()
    matched, said = np.zeros((2, len(prediction), NGRAMS))
    lengths = np.zeros((len(prediction), 2))
    for row, texts in enumerate(zip(prediction, reference, strict=True)):
        one, other = (split(text.rstrip()).split() for text in texts)
        lengths[row] = len(one), len(other)
        for order in range(NGRAMS):
            own, wanted = (Counter(zip(*(words[start:] for start in range(order + 1)))) for words in (one, other))  # noqa: B905
            matched[row, order], said[row, order] = (own & wanted).total(), own.total()
    return matched, said, lengths
