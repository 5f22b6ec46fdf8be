"""Baselines of tasks that answer with one label of several. Shapes: N examples, F features, K labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from finetune.core.encoded import Encoded
from finetune.core.examples import Example, Prediction
from finetune.core.progress import track
from finetune.data.draws import LIMIT, random_keys
from finetune.data.folds import stratified_folds
from finetune.tasks.baselines.base import Baseline, ExampleSet, Untuned, Uses
from finetune.tasks.labels import loss_of

if TYPE_CHECKING:
    from datasets import Dataset

FOLDS = 3
STRENGTHS = (1.0, 10.0, 100.0)
"""C of scikit-learn, from the strongest penalty to the weakest. Of TF-IDF vectors, which have length 1, smaller ones
leave little but the classes' frequencies."""

MOST_WEIGHTS = 1_500_000
"""Weights of the classifier, labels times words and pairs of words, of which the most frequent are looked at: of 4
labels 375,000, of 150 labels 10,000, with which 15,000 short texts take a minute on a core."""

MOST_VALIDATED = 10_000
"""Examples, drawn from the training examples, by which the penalty is chosen: more would take longer than they tell."""

SEED = 0
"""Draws these examples and the folds: the same for every study."""


class LabelBaseline(Baseline):
    """A baseline that chooses among ``labels``, the K classes of the task in its own order."""

    def __init__(self, labels: Sequence[str]):
        self.labels = tuple(labels)

    def likely(self, log_likelihoods: NDArray[np.floating[Any]], examples: Sequence[Example]) -> list[Prediction]:
        """Turn log-likelihoods (N, K) of the labels into predictions."""
        return [
            Prediction(self.labels[int(row.argmax())], loss_of(row, example.target), np.exp(row))
            for row, example in zip(log_likelihoods, examples, strict=True)
        ]


class CommonestLabel(LabelBaseline):
    """Always gives the commonest training label; its probabilities are the labels' training frequencies."""

    name: ClassVar[str] = "commonest-label"
    log_frequencies: NDArray[np.float64]
    """(K,) logarithms of the frequencies."""

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        counts = np.bincount(_classes(training), minlength=len(self.labels))
        self.log_frequencies = np.log(counts / counts.sum())  # of labels that training examples have, each of them

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        size = (len(held_out.examples), len(self.labels))
        return self.likely(np.broadcast_to(self.log_frequencies, size), held_out.examples)


class TfidfLogistic(LabelBaseline):
    """Logistic regression on TF-IDF weights of words and pairs of words.

    The penalty is the one of :data:`STRENGTHS` with most right answers in three-fold cross-validation inside the
    training examples (in a tie the strongest), words and their weights being learnt within each fold. Vectors and
    classifier are scikit-learn's.
    """

    name: ClassVar[str] = "tfidf-logistic"
    uses: ClassVar[Uses] = "words"
    model: Any
    """A scikit-learn pipeline."""

    def __init__(self, labels: Sequence[str], texts: Callable[[Dataset, Encoded], list[str]]):
        """``texts`` writes out the input of each example."""
        super().__init__(labels)
        self.texts = texts

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        texts, classes = np.asarray(self._texts(training), dtype=object), _classes(training)
        some = np.sort(np.argsort(random_keys(len(classes), SEED, LIMIT), kind="stable")[:MOST_VALIDATED])
        self.model = self._model(self._strength(texts[some], classes[some])).fit(texts, classes)

    def _strength(self, texts: NDArray[Any], classes: NDArray[np.int64]) -> float:
        """Choose the penalty, scikit-learn's C, by cross-validation; the strongest where nothing can be left out."""
        folds = stratified_folds(classes, FOLDS, np.random.default_rng(SEED))
        tried = [(strength, number) for strength in STRENGTHS for number in sorted(set(folds.tolist()) - {-1})]
        right = dict.fromkeys(STRENGTHS, 0)
        for strength, number in track(tried, f"{self.name}: choosing a penalty"):
            left = folds == number
            found = self._model(strength).fit(texts[~left], classes[~left])
            right[strength] += int((found.predict(texts[left]) == classes[left]).sum())
        return max(right, key=lambda strength: right[strength])  # the first of them in a tie

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return self.likely(self.model.predict_log_proba(self._texts(held_out)), held_out.examples)

    def _model(self, strength: float) -> Any:
        """Make scikit-learn's pipeline from texts to classes, with the penalty ``strength``, its C."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        words = TfidfVectorizer(ngram_range=(1, 2), max_features=MOST_WEIGHTS // len(self.labels))
        return make_pipeline(words, LogisticRegression(C=strength, max_iter=1000))

    def _texts(self, examples: ExampleSet) -> list[str]:
        return self.texts(examples.data, examples.encoded)


class FeatureBaseline(LabelBaseline):
    """A baseline on the frozen base model's features."""

    uses: ClassVar[Uses] = "features"
    untuned: Untuned

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        self.untuned = untuned
        self.learn(untuned.features(training.examples), _classes(training))

    def learn(self, features: NDArray[np.float32], classes: NDArray[np.int64]) -> None:
        """Learn ``classes`` (N,) from ``features`` (N, F)."""
        raise NotImplementedError


class Centroid(FeatureBaseline):
    """The label whose training examples have the nearest mean of frozen features.

    By Euclidean distance. It has no probabilities: distances are none, and how to make some of them is a choice.
    """

    name: ClassVar[str] = "centroid"
    model: Any
    """scikit-learn's NearestCentroid."""

    def learn(self, features: NDArray[np.float32], classes: NDArray[np.int64]) -> None:
        from sklearn.neighbors import NearestCentroid

        self.model = NearestCentroid().fit(features, classes)

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        found = self.model.predict(self.untuned.features(held_out.examples))
        return [Prediction(self.labels[int(number)], None) for number in found]


class FrozenLogistic(FeatureBaseline):
    """Logistic regression on frozen features, the penalty chosen by cross-validation inside the training examples."""

    name: ClassVar[str] = "frozen-logistic"
    weights: NDArray[np.float64]
    """(K, F)."""
    biases: NDArray[np.float64]
    """(K,)."""

    def learn(self, features: NDArray[np.float32], classes: NDArray[np.int64]) -> None:
        self.weights, self.biases = self.untuned.probe(features, classes.tolist(), len(self.labels))

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        from scipy.special import log_softmax

        logits = self.untuned.features(held_out.examples) @ self.weights.T + self.biases
        return self.likely(log_softmax(logits, axis=1), held_out.examples)


def _classes(examples: ExampleSet) -> NDArray[np.int64]:
    """Give the number of each example's label, (N,)."""
    return examples.encoded.examples.targets.astype(np.int64)
