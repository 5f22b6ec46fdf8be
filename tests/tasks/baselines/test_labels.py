"""Baselines for labels: each is what scikit-learn alone gives, and the same every time."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline

from finetune.core.encoded import Encoded
from finetune.core.examples import Example
from finetune.data.folds import stratified_folds
from finetune.tasks.baselines import labels
from finetune.tasks.baselines.base import ExampleSet
from finetune.tasks.baselines.labels import FOLDS, STRENGTHS, Centroid, CommonestLabel, FrozenLogistic, TfidfLogistic
from tests import tiny

LABELS = sorted(tiny.WORDS)
NOISE = 0.5
"""Share of the labels that are wrong, so that penalties differ in how many they get right."""


class Drawn:
    """Draws features by an example's label and number, and solves with scikit-learn."""

    def features(self, examples):
        random = np.random.default_rng(len(examples))
        centres = np.eye(len(LABELS), 8)[[example.target for example in examples]]
        found = centres + 0.6 * random.normal(size=centres.shape)
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    def probe(self, features, classes, count):
        found = LogisticRegression(C=10.0).fit(features.astype(float), classes)
        return found.coef_, found.intercept_


def examples(rows, at="data.train"):
    encoded = [
        Example(number, {"input_ids": np.arange(4)}, LABELS.index(label), 1.0, label)
        for number, (_, label) in enumerate(rows)
    ]
    return ExampleSet(at, tiny.dataset(text=[text for text, _ in rows]), Encoded(encoded))


def texts(data, encoded):
    return list(data["text"])


@pytest.fixture(scope="module")
def sets():
    random, rows = np.random.default_rng(0), tiny.sentences(120)
    noisy = [(text, LABELS[random.integers(3)] if random.random() < NOISE else label) for text, label in rows[:90]]
    return examples(noisy), examples(rows[90:], "data.test")


def predicted(baseline, sets):
    baseline.fit(sets[0], Drawn())
    return baseline.predict(sets[1])


def classes(examples):
    return np.array([example.target for example in examples.examples])


def same(predictions, held_out, log_likelihoods):
    """The texts, losses and probabilities that follow from log-likelihoods (examples, labels)."""
    right = classes(held_out)
    assert [found.text for found in predictions] == [LABELS[place] for place in log_likelihoods.argmax(1)]
    assert [found.loss for found in predictions] == pytest.approx(-log_likelihoods[np.arange(len(right)), right])
    given = np.stack([found.probabilities for found in predictions])
    np.testing.assert_allclose(given, np.exp(log_likelihoods), rtol=1e-9)
    np.testing.assert_allclose(given.sum(1), 1, rtol=1e-9)


def test_the_commonest_label_has_the_training_frequencies():
    train = examples([("a", "money")] * 2 + [("b", "space")] * 5 + [("c", "sport")] * 3)
    held_out = examples([("a", "money"), ("c", "sport")], "data.test")
    found = predicted(CommonestLabel(LABELS), (train, held_out))
    assert [each.text for each in found] == ["space", "space"]
    assert [each.loss for each in found] == pytest.approx([-np.log(0.2), -np.log(0.3)])
    assert found[0].probabilities.tolist() == pytest.approx([0.2, 0.5, 0.3])


def test_words_are_weighted_and_fitted_as_scikit_learn_alone_does(sets):
    """By its own grid search over the same folds, from which words are learnt too."""
    train, held_out = sets
    found = predicted(TfidfLogistic(LABELS, texts), sets)
    folds = PredefinedSplit(stratified_folds(classes(train), FOLDS, np.random.default_rng(0)))
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    # Folds differ in size by one example at most, here not at all: mean shares choose as counts do.
    search = GridSearchCV(pipeline, {"logisticregression__C": list(STRENGTHS)}, cv=folds, scoring="accuracy")
    search.fit(list(train.data["text"]), classes(train))
    scores = search.cv_results_["mean_test_score"]
    assert len(set(scores)) > 1, "otherwise any penalty would pass"
    same(found, held_out, search.predict_log_proba(list(held_out.data["text"])))


def test_of_many_examples_some_choose_the_penalty_and_all_are_learnt_from(sets, monkeypatch):
    fitted, plain = [], LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda model, x, y: [fitted.append(x.shape), plain(model, x, y)][1])
    monkeypatch.setattr(labels, "MOST_VALIDATED", 45)
    monkeypatch.setattr(labels, "MOST_WEIGHTS", 3 * 50)
    predicted(TfidfLogistic(LABELS, texts), sets)
    assert fitted == [(30, 50)] * FOLDS * len(STRENGTHS) + [(90, 50)], "examples and the most frequent words"


def test_classes_of_one_example_leave_nothing_to_choose_by():
    train = examples([("match goal", "sport"), ("bank loan", "money"), ("moon star", "space")])
    held_out = examples([("the bank", "money"), ("a goal", "sport")], "data.test")
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=STRENGTHS[0]))
    pipeline.fit(list(train.data["text"]), classes(train))
    found = predicted(TfidfLogistic(LABELS, texts), (train, held_out))
    same(found, held_out, pipeline.predict_log_proba(list(held_out.data["text"])))
    assert [each.text for each in found] == ["money", "sport"]


def test_centroids_are_scikit_learns_and_have_no_likelihoods(sets):
    train, held_out = sets
    found = predicted(Centroid(LABELS), sets)
    theirs = NearestCentroid().fit(Drawn().features(train.examples), classes(train))
    wanted = theirs.predict(Drawn().features(held_out.examples))
    assert [each.text for each in found] == [LABELS[place] for place in wanted] and len(set(wanted)) == 3
    assert all(each.loss is None and each.probabilities is None for each in found)


def test_logistic_regression_reads_the_frozen_features(sets):
    train, held_out = sets
    theirs = LogisticRegression(C=10.0).fit(Drawn().features(train.examples).astype(float), classes(train))
    wanted = theirs.predict_log_proba(Drawn().features(held_out.examples).astype(float))
    found = predicted(FrozenLogistic(LABELS), sets)
    right = classes(held_out)
    assert [each.text for each in found] == [LABELS[place] for place in wanted.argmax(1)]
    assert [each.loss for each in found] == pytest.approx(-wanted[np.arange(len(right)), right], rel=1e-6)
