"""Logistic regression: solved to convergence, as scikit-learn solves it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from finetune.train.logistic import STEPS, Axes, Problems, solve

STRENGTHS = [1e-4, 1e-2, 1.0, 100.0, 1e4]


def examples(count, width, kinds, seed=0, shift=0.0):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(kinds, width))
    classes = np.arange(count) % kinds
    features = centres[classes] + 2 * random.normal(size=(count, width)) + shift
    return torch.tensor(features, dtype=torch.float32), torch.from_numpy(classes)


def problems(features, classes, strengths, counts=None, intercept=True):
    counts = torch.ones(len(strengths), len(classes), dtype=torch.bool) if counts is None else counts
    axes = Axes.of(features, intercept)
    return Problems(axes, classes, int(classes.max()) + 1, counts, torch.tensor(strengths, dtype=torch.float64))


@pytest.mark.parametrize("count, width", [(40, 100), (300, 12)], ids=["few examples", "few features"])
@pytest.mark.parametrize("shift", [0.0, 30.0], ids=["", "far from zero"])
@pytest.mark.parametrize("intercept", [True, False])
def test_a_path_of_strengths_is_what_scikit_learn_finds(count, width, shift, intercept):
    features, classes = examples(count, width, 4, shift=shift)
    made = problems(features, classes, STRENGTHS, intercept=intercept)
    solved, steps = solve(made)
    weights, biases = made.axes.plain(solved)
    assert steps < STEPS and (intercept or not biases.any())
    for strength, own, bias in zip(STRENGTHS, weights, biases, strict=True):
        theirs = LogisticRegression(C=strength, fit_intercept=intercept, tol=1e-10, max_iter=20_000)
        wanted = theirs.fit(features.double().numpy(), classes.numpy()).predict_proba(features.double().numpy())
        found = (features.double() @ own.T + bias).softmax(-1).numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


def test_two_classes_are_one_more_case_of_many():
    features, classes = examples(60, 8, 2)
    made = problems(features, classes, [1.0])
    weights, _ = made.axes.plain(solve(made)[0])
    theirs = LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000).fit(features.double().numpy(), classes.numpy())
    # Two columns share the penalty: together they weigh half as much as the one column of scikit-learn's.
    np.testing.assert_allclose((weights[0, 1] - weights[0, 0]).numpy(), theirs.coef_[0], atol=1e-3)


def test_each_problem_counts_its_own_examples():
    features, classes = examples(90, 6, 3)
    counts = torch.rand(4, 90, generator=torch.Generator().manual_seed(0)) < 0.7
    together = problems(features, classes, [0.1, 1.0, 1.0, 10.0], counts)
    solved = together.axes.plain(solve(together)[0])
    for number, strength in enumerate([0.1, 1.0, 1.0, 10.0]):
        own = counts[number]
        alone = problems(features[own], classes[own], [strength])
        weights, biases = alone.axes.plain(solve(alone)[0])
        torch.testing.assert_close(solved[0][number], weights[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(
            solved[1][number] - solved[1][number].mean(), biases[0] - biases[0].mean(), atol=1e-4, rtol=0
        )


def test_a_start_near_the_solution_ends_in_the_same_place_sooner():
    features, classes = examples(200, 20, 3)
    made = problems(features, classes, [1.0])
    solved, steps = solve(made)
    again, fewer = solve(made, solved + 1e-3)
    assert fewer < steps
    # What is added to the intercepts of all classes alike changes nothing.
    torch.testing.assert_close(*(each - each.mean(-1, keepdim=True) for each in (again, solved)), atol=1e-3, rtol=0)


def test_features_that_never_change_or_repeat_do_no_harm():
    features, classes = examples(50, 5, 2)
    doubled = torch.cat([features, features, torch.full((50, 3), 7.0)], 1)
    made = problems(doubled, classes, [1.0])
    weights, biases = made.axes.plain(solve(made)[0])
    wanted = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
    theirs = wanted.fit(torch.cat([features, features], 1).double().numpy(), classes.numpy())
    logits = doubled.double() @ weights[0].T + biases[0]
    assert torch.isfinite(logits).all() and torch.isfinite(weights).all()
    assert (
        logits.argmax(-1).numpy() == theirs.predict(torch.cat([features, features], 1).double().numpy())
    ).mean() > 0.97


def test_losses_are_those_of_the_examples_left_out():
    features, classes = examples(60, 5, 3)
    left = torch.arange(60)[None] % 4 == 0
    made = problems(features, classes, [1.0], ~left)
    solved, _ = solve(made)
    weights, biases = made.axes.plain(solved)
    logits = (features.double() @ weights[0].T + biases[0])[left[0]]
    nll, right = made.losses(solved, left)
    assert nll[0] == pytest.approx(torch.nn.functional.cross_entropy(logits, classes[left[0]]).item(), abs=1e-9)
    assert right[0] == (logits.argmax(-1) == classes[left[0]]).double().mean()


def test_many_classes_take_no_more_steps_than_few():
    """What a class's weights feel falls with their number: scaled as if there were two, steps are lost."""
    taken = []
    for kinds in (3, 60):
        features, classes = examples(600, 48, kinds)
        _, steps = solve(problems(torch.nn.functional.normalize(features, dim=-1), classes, [1.0]))
        taken.append(steps)
    assert taken[1] <= 1.5 * taken[0], taken
