"""A probe chooses what it sees and how strong its penalty is, by cross-validation inside the training examples."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

from finetune.core.randomness import Streams
from finetune.data.folds import stratified_folds
from finetune.train.probe import FOLDS, STRENGTHS, fit


@pytest.fixture
def runtime(tmp_path):
    return SimpleNamespace(cache=tmp_path)


def features(count=120, width=16, kinds=4, noise=2.0, seed=0):
    random = np.random.default_rng(seed)
    classes = np.arange(count) % kinds
    centres = random.normal(size=(kinds, width))
    return torch.tensor(centres[classes] + noise * random.normal(size=(count, width))).float(), classes.tolist()


def test_the_stream_of_the_split_draws_the_folds():
    classes = np.arange(60) % 3
    drawn = [stratified_folds(classes, FOLDS, Streams(seed).numpy("split", 0, 1)) for seed in (1, 2)]
    own = [
        stratified_folds(classes, FOLDS, Streams(seed, frozenset({"split"})).numpy("split", 0, 1)) for seed in (1, 2)
    ]
    assert (drawn[0] == drawn[1]).all() and (own[0] != own[1]).any()


def test_it_is_about_as_good_as_scikit_learns(runtime):
    vectors, classes = features(width=24)
    new, right = features(count=2000, width=24, seed=0)
    new = new[120:]
    found = fit({"mean": vectors}, False, classes, 4, True, Streams(0), runtime)
    theirs = LogisticRegressionCV(Cs=list(STRENGTHS), max_iter=5000).fit(vectors.double().numpy(), classes)
    accuracy = ((new.double() @ found.weights.T + found.biases).argmax(1).numpy() == right[120:]).mean()
    assert accuracy > theirs.score(new.double().numpy(), right[120:]) - 0.02
    assert found.facts["strength"] in STRENGTHS and found.facts["folds"] == FOLDS


def test_the_features_that_say_most_are_chosen_and_the_reason_is_told(runtime):
    vectors, classes = features(noise=1.0)
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=vectors.shape)).float()
    found = fit({"cls": noise, "mean": vectors, "max": noise}, None, classes, 4, True, Streams(0), runtime)
    assert found.mode == "mean" and len(found.facts["tried"]) == 6
    assert "cross-validation on the training examples" in found.why and "mean" in found.why and "%" in found.why


def test_length_counts_where_it_says_something(runtime):
    """All examples lie in one direction: divided by their length they are the same."""
    vectors = torch.arange(1, 41).float()[:, None].expand(40, 3).contiguous()
    classes = [int(number >= 20) for number in range(40)]
    found = fit({"mean": vectors}, None, classes, 2, True, Streams(0), runtime)
    assert not found.normalised and found.facts["validated"]["accuracy"] > 0.9
    assert fit({"mean": vectors}, True, classes, 2, True, Streams(0), runtime).normalised


def test_so_few_examples_that_none_can_be_left_out_are_fitted_all_the_same(runtime):
    vectors, _ = features(count=3)
    found = fit({"mean": vectors}, False, [0, 1, 2], 3, True, Streams(0), runtime)
    assert (vectors.double() @ found.weights.T + found.biases).argmax(1).tolist() == [0, 1, 2]
    assert found.facts["folds"] == 0 and found.facts["strength"] == 1.0


def test_weights_of_classes_are_those_of_scikit_learn(runtime):
    vectors, classes = features()
    asked = {0: 1.0, 1: 6.0, 2: 0.5, 3: 1.0}
    weights = np.array([asked[label] for label in classes])
    found = fit({"mean": vectors}, False, classes, 4, True, Streams(0), runtime, weights)
    theirs = LogisticRegression(C=found.facts["strength"], class_weight=asked, tol=1e-10, max_iter=20_000)
    wanted = theirs.fit(vectors.double().numpy(), classes).predict_proba(vectors.double().numpy())
    own = (vectors.double() @ found.weights.T + found.biases).softmax(-1).numpy()
    np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-3)
