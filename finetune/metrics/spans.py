"""Answers that are parts of a text, as the official evaluation of SQuAD compares them (Rajpurkar et al. 2016, section
6.1; 2018, section 5): what metrics of such answers have in common."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from finetune.core.answers import spans_in
from finetune.metrics.base import Columns, Values

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Write ``text`` in small letters, without ASCII punctuation and English articles, one space between words."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def same(said: str, wanted: str) -> float:
    """Tell whether two normalised texts are equal: 1 or 0."""
    return float(said == wanted)


def overlap(said: str, wanted: str) -> float:
    """Compute F1 of the words of two normalised texts, each counted as often as it is there; where one of them has no
    words, whether both have none."""
    one, other = said.split(), wanted.split()
    if not one or not other:
        return float(one == other)
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other))


def best(columns: Columns, compare: Callable[[str, str], float]) -> Values:
    """Compare each prediction with all right answers, and take the best: (examples,). Where there is no answer, an
    empty prediction is right."""
    pairs = zip(columns["prediction"], columns["reference"], strict=True)
    return np.array([_best(normalised(said), spans_in(wanted), compare) for said, wanted in pairs])


def _best(said: str, wanted: Sequence[str], compare: Callable[[str, str], float]) -> float:
    # As the official script does: an answer of which nothing is left is none.
    return max(compare(said, answer) for answer in [*filter(None, map(normalised, wanted))] or [""])
