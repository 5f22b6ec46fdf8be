"""A baseline of tasks that compare texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from finetune.core.examples import Prediction
from finetune.tasks.baselines.base import Baseline, ExampleSet, Untuned, Uses

if TYPE_CHECKING:
    from datasets import Dataset

MOST_WORDS = 200_000
"""Words that are looked at, the most frequent of the training examples."""


class TfidfCosine(Baseline):
    """The cosine similarity of TF-IDF weights of words, which are learnt from the training examples."""

    name: ClassVar[str] = "tfidf-cosine"
    uses: ClassVar[Uses] = "words"
    words: Any
    """A scikit-learn vectoriser."""

    def __init__(
        self,
        columns: list[str],
        pairs: Callable[[ExampleSet, NDArray[np.float64]], list[Prediction]],
        ranked: Callable[[ExampleSet, Callable[[slice], NDArray[np.floating]]], list[Prediction]] | None,
    ):
        """``columns`` hold the one or two texts of a row. ``pairs`` makes predictions of the cosine of each row's two;
        ``ranked`` of those of each row's first text with the last ones of all rows, where that is what is asked."""
        self.columns, self.pairs, self.ranked = columns, pairs, ranked

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = [text for column in self.columns for text in training.data[column]]
        # Also of one letter, and of signs alone: texts need not have words.
        self.words = TfidfVectorizer(max_features=MOST_WORDS, token_pattern=r"(?u)\w+|[^\w\s]").fit(texts)

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        first, last = self._vectors(held_out.data, self.columns[0]), self._vectors(held_out.data, self.columns[-1])
        if self.ranked is None:
            return self.pairs(held_out, np.asarray(first.multiply(last).sum(1), dtype=float).ravel())
        return self.ranked(held_out, lambda some: (first[some] @ last.T).toarray())

    def _vectors(self, data: Dataset, column: str) -> Any:
        """Sparse (rows, words), each row of length 1 or 0."""
        return self.words.transform(data[column][:])
