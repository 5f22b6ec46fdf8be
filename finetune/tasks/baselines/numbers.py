"""Baselines of tasks that answer with a number, in the unit in which it is learnt. Shapes: N examples, F features."""

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

if TYPE_CHECKING:
    from datasets import Dataset

FOLDS = 3
WORD_PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1)
"""alpha of scikit-learn's Ridge, from the strongest to the weakest: of TF-IDF vectors, which have length 1, stronger
ones leave little but the mean, and weaker ones learn the training examples by heart."""

PENALTIES = tuple(float(value) for value in np.logspace(6, -4, 21))
"""alpha for dense features, from the strongest. Of those of length 1 the first ones leave little but the mean."""

MOST_WORDS = 375_000
"""Words and pairs of words, of which the most frequent are looked at."""

MOST_VALIDATED = 10_000
"""Examples, drawn from the training examples, by which the penalty of words is chosen."""

SEED = 0
"""Draws these examples and the folds: the same for every study."""

Answers = Callable[[NDArray[np.float64], Sequence[Example]], list[Prediction]]


class NumberBaseline(Baseline):
    """A baseline that predicts a number."""

    def __init__(self, answers: Answers):
        """``answers`` turns numbers (N,), in the unit of the examples' targets, into predictions."""
        self.answers = answers


class TrainingMean(NumberBaseline):
    """Always gives the mean of the training examples."""

    name: ClassVar[str] = "training-mean"
    mean: float

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        self.mean = float(_targets(training).mean())

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return self.answers(np.full(len(held_out.examples), self.mean), held_out.examples)


class TfidfRidge(NumberBaseline):
    """Ridge regression on TF-IDF weights of words and pairs of words.

    The penalty is the one of :data:`WORD_PENALTIES` with the least squared error in three-fold cross-validation inside
    the training examples (in a tie the strongest), words and their weights being learnt within each fold. Vectors and
    regression are scikit-learn's.
    """

    name: ClassVar[str] = "tfidf-ridge"
    uses: ClassVar[Uses] = "words"
    model: Any
    """A scikit-learn pipeline."""

    def __init__(self, answers: Answers, texts: Callable[[Dataset, Encoded], list[str]]):
        """``texts`` writes out the input of each example."""
        super().__init__(answers)
        self.texts = texts

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        texts, targets = np.asarray(self._texts(training), dtype=object), _targets(training)
        some = np.sort(np.argsort(random_keys(len(targets), SEED, LIMIT), kind="stable")[:MOST_VALIDATED])
        self.model = self._model(self._penalty(texts[some], targets[some])).fit(texts, targets)

    def _penalty(self, texts: NDArray[Any], targets: NDArray[np.float64]) -> float:
        """Choose the penalty, scikit-learn's alpha, by cross-validation."""
        folds = stratified_folds(np.zeros(len(targets)), FOLDS, np.random.default_rng(SEED))
        tried = [(penalty, number) for penalty in WORD_PENALTIES for number in sorted(set(folds.tolist()))]
        errors = dict.fromkeys(WORD_PENALTIES, 0.0)
        for penalty, number in track(tried, f"{self.name}: choosing a penalty"):
            left = folds == number
            found = self._model(penalty).fit(texts[~left], targets[~left])
            errors[penalty] += float(((found.predict(texts[left]) - targets[left]) ** 2).sum())
        return min(errors, key=lambda penalty: errors[penalty])  # the first of them in a tie

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return self.answers(np.asarray(self.model.predict(self._texts(held_out))), held_out.examples)

    def _model(self, penalty: float) -> Any:
        """Make scikit-learn's pipeline from texts to numbers."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline

        words = TfidfVectorizer(ngram_range=(1, 2), max_features=MOST_WORDS)
        return make_pipeline(words, Ridge(alpha=penalty, solver="sparse_cg", tol=1e-6))

    def _texts(self, examples: ExampleSet) -> list[str]:
        return self.texts(examples.data, examples.encoded)


class FrozenRidge(NumberBaseline):
    """Ridge regression on frozen features, the penalty chosen by leaving out each training example in turn.

    In closed form, by scikit-learn's RidgeCV.
    """

    name: ClassVar[str] = "frozen-ridge"
    uses: ClassVar[Uses] = "features"
    untuned: Untuned
    model: Any
    """scikit-learn's RidgeCV."""

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        from sklearn.linear_model import RidgeCV

        self.untuned = untuned
        features = untuned.features(training.examples).astype(np.float64)
        self.model = RidgeCV(alphas=PENALTIES).fit(features, _targets(training))

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        features = self.untuned.features(held_out.examples).astype(np.float64)
        return self.answers(np.asarray(self.model.predict(features)), held_out.examples)


def _targets(examples: ExampleSet) -> NDArray[np.float64]:
    """Give the number that is learnt of each example, (N,)."""
    return examples.encoded.examples.targets.astype(np.float64)
