"""Baselines for numbers: each is what scikit-learn alone gives, and the same every time."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline

from finetune.core.encoded import Encoded
from finetune.core.examples import Example, Prediction
from finetune.data.folds import stratified_folds
from finetune.tasks.baselines.base import ExampleSet
from finetune.tasks.baselines.numbers import (
    FOLDS,
    PENALTIES,
    WORD_PENALTIES,
    FrozenRidge,
    TfidfRidge,
    TrainingMean,
)
from tests import tiny

TOPICS = sorted(tiny.WORDS)


class Drawn:
    """Draws features by an example's number."""

    def features(self, examples):
        random = np.random.default_rng(len(examples))
        found = np.eye(3, 8)[[round(example.target) % 3 for example in examples]]
        return (found + 0.4 * random.normal(size=found.shape)).astype(np.float32)


def examples(rows, at="data.train"):
    random = np.random.default_rng(len(rows))
    encoded = [
        Example(number, {"input_ids": np.arange(4)}, TOPICS.index(topic) + random.normal(), 1.0, "")
        for number, (_, topic) in enumerate(rows)
    ]
    return ExampleSet(at, tiny.dataset(text=[text for text, _ in rows]), Encoded(encoded))


def texts(data, encoded):
    return list(data["text"])


def answers(learnt, examples):
    return [Prediction(repr(value), None) for value in learnt.tolist()]


@pytest.fixture(scope="module")
def sets():
    rows = tiny.sentences(120)
    return examples(rows[:90]), examples(rows[90:], "data.test")


def predicted(baseline, sets):
    baseline.fit(sets[0], Drawn())
    return [float(found.text) for found in baseline.predict(sets[1])]


def targets(examples):
    return np.array([example.target for example in examples.examples])


def test_the_mean_is_that_of_the_training_examples(sets):
    assert predicted(TrainingMean(answers), sets) == pytest.approx([targets(sets[0]).mean()] * 30)


def test_words_are_weighted_and_fitted_as_scikit_learn_alone_does(sets):
    """By its own grid search over the same folds, from which words are learnt too."""
    train, held_out = sets
    baseline = TfidfRidge(answers, texts)
    found = predicted(baseline, sets)
    folds = PredefinedSplit(stratified_folds(np.zeros(90), FOLDS, np.random.default_rng(0)))
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), Ridge(solver="sparse_cg", tol=1e-6))
    wanted = {"ridge__alpha": list(WORD_PENALTIES)}
    search = GridSearchCV(pipeline, wanted, scoring="neg_mean_squared_error", cv=folds)
    search.fit(texts(train.data, None), targets(train))
    assert baseline.model[-1].alpha == search.best_params_["ridge__alpha"]
    assert found == pytest.approx(search.predict(texts(held_out.data, None)).tolist())
    assert found == predicted(TfidfRidge(answers, texts), sets)


def test_frozen_features_are_fitted_as_scikit_learn_alone_does(sets):
    train, held_out = sets
    found = predicted(FrozenRidge(answers), sets)
    theirs = RidgeCV(alphas=PENALTIES).fit(Drawn().features(train.examples).astype(float), targets(train))
    assert found == pytest.approx(theirs.predict(Drawn().features(held_out.examples).astype(float)).tolist())
