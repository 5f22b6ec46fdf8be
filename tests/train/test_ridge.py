"""A probe of numbers is ridge regression, as scikit-learn solves it, and its penalty that of leaving one out."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from finetune.tasks.baselines.numbers import PENALTIES
from finetune.train.logistic import Axes
from finetune.train.ridge import fit_ridge, left_out


@pytest.fixture
def runtime(tmp_path):
    return SimpleNamespace(cache=tmp_path)


def problem(count=60, width=12, noise=1.0, seed=0):
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, width)) + 2
    targets = features @ random.normal(size=width) + noise * random.normal(size=count)
    return torch.tensor(features, dtype=torch.float32), targets


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("count", "width"), [(60, 12), (20, 40)])
def test_it_is_that_of_scikit_learn(runtime, intercept, count, width):
    features, targets = problem(count, width, noise=3.0)
    found = fit_ridge({"mean": features}, False, targets.tolist(), intercept, runtime)
    theirs = RidgeCV(alphas=PENALTIES, fit_intercept=intercept).fit(features.double().numpy(), targets)
    assert found.facts["penalty"] == theirs.alpha_ and not found.normalised
    np.testing.assert_allclose(found.weights[0], theirs.coef_, rtol=1e-6, atol=1e-9)
    assert found.biases.item() == pytest.approx(theirs.intercept_, abs=1e-8)


@pytest.mark.parametrize("intercept", [True, False])
def test_the_errors_are_those_of_fitting_again_without_each_example(intercept):
    features, targets = problem(15, 6)
    wanted = torch.tensor(np.stack([targets, targets[::-1]], axis=1))
    found = left_out(Axes.of(features, intercept), wanted, (10.0, 0.1), intercept)
    for penalty, error in zip((10.0, 0.1), found.tolist(), strict=True):
        model = Ridge(penalty, fit_intercept=intercept)
        said = cross_val_predict(model, features.double().numpy(), wanted.numpy(), cv=LeaveOneOut())
        assert error == pytest.approx(float(((said - wanted.numpy()) ** 2).sum(1).mean()), rel=1e-6)


def test_the_features_that_say_most_are_chosen_and_the_reason_is_told(runtime):
    features, targets = problem()
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=features.shape)).float()
    found = fit_ridge({"cls": noise, "mean": features, "max": noise}, None, targets.tolist(), True, runtime)
    assert found.mode == "mean" and len(found.facts["tried"]) == 6 and found.facts["solver"] == "ridge"
    assert "leaving out each training example" in found.why and "mean" in found.why


def test_where_nothing_can_be_told_the_strongest_penalty_is_taken(runtime):
    """Noise alone: what is learnt of it would be wrong."""
    features = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 30))).float()
    targets = np.random.default_rng(2).normal(size=40)
    found = fit_ridge({"mean": features}, False, targets.tolist(), True, runtime)
    assert found.facts["penalty"] >= 100 and found.weights.norm() < 0.2
    assert found.biases.item() == pytest.approx(targets.mean(), abs=0.1)


def test_two_examples_are_enough(runtime):
    found = fit_ridge({"mean": torch.eye(2)}, False, [0.0, 1.0], True, runtime)
    assert torch.isfinite(found.weights).all() and found.biases.shape == (1,)
