"""Baselines of multiple choice, which know little or nothing of the question. Shapes: N examples, C choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from finetune.core.examples import Prediction
from finetune.tasks.baselines.base import Baseline, ExampleSet, Untuned, Uses
from finetune.tasks.choice_columns import ChoiceColumns, name_of


class CommonestPlace(Baseline):
    """Always gives the place where the right choice most often stands; its probabilities are the places' frequencies.

    One is added to each place's count (Laplace), since a place may never have been right. They are there where all
    questions have equally many choices.
    """

    name: ClassVar[str] = "commonest-place"
    log_frequencies: NDArray[np.float64]
    """(C,) logarithms of the frequencies."""

    def __init__(self, places: Sequence[str], fixed: bool):
        """``places`` are what the choices are called, C; ``fixed``: each question has so many."""
        self.places, self.fixed = tuple(places), fixed

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        counts = np.bincount(training.encoded.examples.targets.astype(np.int64), minlength=len(self.places)) + 1.0
        self.log_frequencies = np.log(counts / counts.sum())

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        own = self.log_frequencies
        said, shares = self.places[int(own.argmax())], np.exp(own)
        if not self.fixed:
            return [Prediction(said, None) for _ in held_out.examples]
        return [Prediction(said, float(-own[example.target]), shares) for example in held_out.examples]


class LongestChoice(Baseline):
    """Gives the longest choice, in characters; of equally long ones the first.

    Right answers tend to be the ones that were written with most care.
    """

    name: ClassVar[str] = "longest-choice"

    def __init__(self, columns: ChoiceColumns):
        self.columns = columns

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        pass

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        rows = self.columns.rows(held_out.data, held_out.at)
        return [Prediction(name_of(int(np.argmax([len(each) for each in row.choices]))), None) for row in rows]


class WordOverlap(Baseline):
    """Gives the choice that has most words in common with question and context, by cosine of TF-IDF weights.

    Words, in small letters, are weighted by how rare they are in the training
    examples' questions, contexts and choices; vectors are scikit-learn's. In a tie the first.
    """

    name: ClassVar[str] = "tfidf-overlap"
    uses: ClassVar[Uses] = "words"
    words: Any
    """A scikit-learn vectorizer."""

    def __init__(self, columns: ChoiceColumns):
        self.columns = columns

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        rows = self.columns.rows(training.data, training.at)
        self.words = TfidfVectorizer(sublinear_tf=True)
        self.words.fit([text for row in rows for text in (f"{row.context}\n{row.question}", *row.choices)])

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        found = []
        for row in self.columns.rows(held_out.data, held_out.at):
            asked = self.words.transform([f"{row.context}\n{row.question}"])
            shared = (self.words.transform(row.choices) @ asked.T).toarray()[:, 0]
            found.append(Prediction(name_of(int(shared.argmax())), None))
        return found
