"""What texts tell of an answer, measured by a cheap model: which column is worth learning, and whether numbers are
ordered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from finetune.init.columns import Column

ROWS = 1000
"""Examples that the cheap model is fitted on at most."""
FOLDS = 3
FEWEST = 12
"""Fewer examples tell nothing."""
LONGEST = 600
"""Characters of a text that are looked at."""
DRAWS = 400
"""Orders of the labels that the true one is held against."""


def gain(texts: Sequence[Column], answer: Column, numeric: bool) -> float:
    """Measure how much better than always saying the same the answers are that TF-IDF weights of ``texts`` give in
    cross-validation: 0 not at all, 1 always right; of numbers, the correlation."""
    found = _answers(tuple(texts), answer, numeric)
    if found is None:
        return 0.0
    wanted, said = found
    if numeric:
        spread = float(np.std(said)) * float(np.std(wanted))
        return max(0.0, float(np.corrcoef(said, wanted)[0, 1])) if spread else 0.0
    _, counts = np.unique(wanted, return_counts=True)
    commonest = counts.max() / counts.sum()
    return max(0.0, float(((said == wanted).mean() - commonest) / max(1 - commonest, 1e-9)))


def ordered(texts: Sequence[Column], answer: Column) -> float:
    """Measure whether mistakes go to neighbouring numbers more often than under other orders of the same numbers: how
    many SDs below chance the distance is. Large: they are ordered; about zero: they are codes, or too few to tell."""
    found = _answers(tuple(texts), answer, False)
    if found is None:
        return 0.0
    levels = {value: place for place, value in enumerate(sorted({*found[0]}, key=float))}
    wanted, said = (np.array([levels[value] for value in side]) for side in found)
    wrong = wanted != said
    if wrong.sum() < 10 or len(levels) < 3:
        return 0.0
    generator = np.random.default_rng(0)
    own = np.abs(wanted[wrong] - said[wrong]).mean()
    others = []
    for _ in range(DRAWS):
        order = generator.permutation(len(levels))
        others.append(np.abs(order[wanted[wrong]] - order[said[wrong]]).mean())
    return float((np.mean(others) - own) / max(float(np.std(others)), 1e-9))


@lru_cache(maxsize=64)
def _answers(texts: tuple[Column, ...], answer: Column, numeric: bool) -> tuple[Any, Any] | None:
    """Give the answers of up to :data:`ROWS` rows, and what the cheap model says of each without having seen it."""
    from sklearn.model_selection import KFold

    rows = [row for row, value in enumerate(answer.values) if value is not None and value != "" and value == value]
    rows = list(np.random.default_rng(0).permutation(rows)[:ROWS])
    if len(rows) < FEWEST or not texts:
        return None
    # Words of each column count apart: the same word means something else in another place.
    documents = [[text.texts[row][:LONGEST] for row in rows] for text in texts]
    wanted = np.array([float(answer.values[row]) if numeric else str(answer.values[row]) for row in rows])
    said = np.empty_like(wanted)
    for train, test in KFold(FOLDS).split(wanted):
        if not numeric and len({*wanted[train]}) < 2:
            said[test] = wanted[train][0]
            continue
        said[test] = _fit(documents, wanted, train, test, numeric)
    return wanted, said


def _fit(documents: list[list[str]], wanted: Any, train: Any, test: Any, numeric: bool) -> Any:
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge, RidgeClassifier

    parts: tuple[list[Any], list[Any]] = [], []
    for column in documents:
        weights = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b|[^\w\s]")
        try:
            learnt = weights.fit_transform([column[row] for row in train])
        except ValueError:  # no word at all in it
            continue
        parts[0].append(learnt)
        parts[1].append(weights.transform([column[row] for row in test]))
    if not parts[0]:
        return np.full(len(test), wanted[train][0])
    model = Ridge(alpha=1.0) if numeric else RidgeClassifier(alpha=1.0)
    model.fit(sparse.hstack(parts[0]).tocsr(), wanted[train])
    return model.predict(sparse.hstack(parts[1]).tocsr())
