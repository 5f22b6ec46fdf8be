"""Baselines of tasks that answer with any number of labels. Shapes: N examples, F features, K labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from finetune.core.encoded import Encoded
from finetune.core.examples import Example, Prediction
from finetune.core.label_sets import written
from finetune.core.progress import track
from finetune.data.draws import LIMIT, random_keys
from finetune.tasks.baselines.base import Baseline, ExampleSet, Untuned, Uses

if TYPE_CHECKING:
    from datasets import Dataset

FOLDS = 3
STRENGTHS = (1.0, 10.0, 100.0)
"""C of scikit-learn, from the strongest penalty to the weakest."""

MOST_WEIGHTS = 1_500_000
"""Weights of the classifiers, labels times words and pairs of words, of which the most frequent are looked at."""

MOST_VALIDATED = 3_000
"""Examples, drawn from the training examples, by which the penalty is chosen."""

SEED = 0
"""Draws these examples and the folds: the same for every study."""

Marks = NDArray[np.int64]
Floats = NDArray[np.float64]


class SetBaseline(Baseline):
    """A baseline that decides about ``labels``, the K labels of the task in its own order."""

    def __init__(self, labels: Sequence[str]):
        self.labels = tuple(labels)
        self.places = {label: place for place, label in enumerate(self.labels)}

    def said(self, chosen: NDArray[np.bool_], log_odds: Floats, examples: Sequence[Example]) -> list[Prediction]:
        """Turn what is ``chosen`` of the labels (N, K), and their ``log_odds`` (N, K), into predictions."""
        targets = np.array([example.target for example in examples])
        losses = np.logaddexp(0, np.where(targets, -log_odds, log_odds)).sum(1)
        names = np.array(self.labels, dtype=object)
        return [
            Prediction(written(names[row], self.places), float(loss)) for row, loss in zip(chosen, losses, strict=True)
        ]


class ConstantSet(SetBaseline):
    """A baseline that always gives the same set; its probabilities are how often labels are there, each by itself."""

    log_odds: Floats
    """(K,) by Laplace's rule of succession, so that none is infinite."""
    chosen: NDArray[np.bool_]
    """(K,)."""

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        marks = _marks(training)
        self.log_odds = _log_odds(marks)
        self.chosen = self.choose(marks)

    def choose(self, marks: Marks) -> NDArray[np.bool_]:
        """Choose the set (K,), by the ``marks`` (N, K) of the training examples."""
        raise NotImplementedError

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        size = (len(held_out.examples), len(self.labels))
        every = np.broadcast_to(self.chosen, size), np.broadcast_to(self.log_odds, size)
        return self.said(*every, held_out.examples)


class CommonestSet(ConstantSet):
    """Always gives the commonest set of labels in the training examples."""

    name: ClassVar[str] = "commonest-set"

    def choose(self, marks: Marks) -> NDArray[np.bool_]:
        sets, counts = np.unique(marks, axis=0, return_counts=True)
        return np.asarray(sets[counts.argmax()] > 0)


class PrevalentLabels(ConstantSet):
    """Always gives the commonest labels, as many as have the best micro-F1 on the training examples."""

    name: ClassVar[str] = "prevalent-labels"

    def choose(self, marks: Marks) -> NDArray[np.bool_]:
        counts = marks.sum(0)
        order = np.argsort(-counts, kind="stable")
        sizes = np.arange(1, len(counts) + 1)
        f1 = 2 * counts[order].cumsum() / (len(marks) * sizes + counts.sum())
        chosen = np.zeros(len(counts), dtype=bool)
        chosen[order[: 1 + f1.argmax()]] = True
        return chosen


class OneVsRest(SetBaseline):
    """A baseline that has a logistic regression for each label, all with one penalty.

    It is the one of :data:`STRENGTHS` with the least loss in three-fold cross-validation inside the training examples
    (in a tie the strongest). A label that all examples or none have stands for how often it is there.
    """

    def learn(self, vectors: Callable[[NDArray[np.int64]], Callable[[Any], Any]], inputs: Any, marks: Marks) -> None:
        """Learn ``marks`` (N, K) of ``inputs`` (N,). ``vectors`` makes of the numbers of some examples what turns
        inputs into vectors."""
        every = np.arange(len(marks))
        some = np.sort(np.argsort(random_keys(len(marks), SEED, LIMIT), kind="stable")[:MOST_VALIDATED])
        folds = np.random.default_rng(SEED).permutation(len(some)) % FOLDS
        losses = dict.fromkeys(STRENGTHS, 0.0)
        for fold in track(range(FOLDS if len(some) >= FOLDS else 0), f"{self.name}: choosing a penalty"):
            own, left = some[folds != fold], some[folds == fold]
            seen = vectors(own)
            learnt, new = seen(inputs[own]), seen(inputs[left])
            for strength in STRENGTHS:
                found = _odds_of(_fitted(learnt, marks[own], strength), new)
                losses[strength] += float(np.logaddexp(0, np.where(marks[left], -found, found)).sum())
        self.seen = vectors(every)
        best = min(losses, key=lambda strength: losses[strength])  # the first of them in a tie
        self.models = _fitted(self.seen(inputs), marks, best)

    def answers(self, inputs: Any, examples: Sequence[Example]) -> list[Prediction]:
        """Predict ``examples`` by their ``inputs`` (N,)."""
        found = _odds_of(self.models, self.seen(inputs))
        return self.said(found > 0, found, examples)


class TfidfOneVsRest(OneVsRest):
    """For each label, logistic regression on TF-IDF weights of words and pairs of words.

    Words and their weights are learnt within each fold. Vectors and classifiers are scikit-learn's.
    """

    name: ClassVar[str] = "tfidf-one-vs-rest"
    uses: ClassVar[Uses] = "words"

    def __init__(self, labels: Sequence[str], texts: Callable[[Dataset, Encoded], list[str]]):
        """``texts`` writes out the input of each example."""
        super().__init__(labels)
        self.texts = texts

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = self._texts(training)

        def vectors(some: NDArray[np.int64]) -> Callable[[Any], Any]:
            words = TfidfVectorizer(ngram_range=(1, 2), max_features=MOST_WEIGHTS // len(self.labels))
            return words.fit(texts[some]).transform

        self.learn(vectors, texts, _marks(training))

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return self.answers(self._texts(held_out), held_out.examples)

    def _texts(self, examples: ExampleSet) -> NDArray[Any]:
        return np.asarray(self.texts(examples.data, examples.encoded), dtype=object)


class FrozenOneVsRest(OneVsRest):
    """For each label, logistic regression on frozen features."""

    name: ClassVar[str] = "frozen-one-vs-rest"
    uses: ClassVar[Uses] = "features"
    untuned: Untuned

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        self.untuned = untuned
        self.learn(lambda some: lambda features: features, untuned.features(training.examples), _marks(training))

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return self.answers(self.untuned.features(held_out.examples), held_out.examples)


def _fitted(vectors: Any, marks: Marks, strength: float) -> list[Any]:
    """Fit a model for each label, or give its log-odds where all examples or none have it."""
    from sklearn.linear_model import LogisticRegression

    found: list[Any] = []
    for own, constant in zip(marks.T, _log_odds(marks), strict=True):
        mixed = 0 < own.sum() < len(own)
        found.append(LogisticRegression(C=strength, max_iter=1000).fit(vectors, own) if mixed else float(constant))
    return found


def _odds_of(models: Sequence[Any], vectors: Any) -> Floats:
    """Compute the log-odds of the labels, (N, K), by each one's model."""
    count = vectors.shape[0]
    columns = [
        np.full(count, model) if isinstance(model, float) else model.decision_function(vectors) for model in models
    ]
    return np.stack(columns, axis=1)


def _log_odds(marks: Marks) -> Floats:
    """Compute the log-odds of the labels, (K,), from how many of the examples (N, K) have them."""
    counts = marks.sum(0)
    return np.asarray(np.log((counts + 1) / (len(marks) - counts + 1)))


def _marks(examples: ExampleSet) -> Marks:
    """Mark the labels of each example, (N, K)."""
    return np.array([example.target for example in examples.examples], dtype=np.int64)
