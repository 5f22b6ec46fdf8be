"""The mean of predictions, against sums worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from finetune.evaluate.ensemble import ensemble
from finetune.evaluate.store import Predictions
from finetune.tasks.classification import Classification

LABELS = ("no", "yes", "so")


def predictions(logits, right=None) -> Predictions:
    """What a model says whose logits are (n, 3); the right answers are the first labels, or ``right``."""
    logits = np.asarray(logits, dtype=np.float64)
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    right = np.zeros(len(log), dtype=int) if right is None else np.asarray(right)
    probabilities = np.exp(log).astype(np.float32)
    texts, references = [LABELS[best] for best in probabilities.argmax(1)], [LABELS[one] for one in right]
    return Predictions(
        example=np.arange(len(log)),
        prediction=texts,
        reference=references,
        score=np.array([float(text == reference) for text, reference in zip(texts, references, strict=True)]),
        loss=-log[np.arange(len(log)), right],
        weight=np.ones(len(log)),
        probabilities=probabilities,
        labels=LABELS,
    )


def same(one: Predictions, other: Predictions) -> bool:
    arrays = ("example", "score", "loss", "weight", "probabilities")
    texts = one.prediction == other.prediction and one.reference == other.reference
    return texts and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)


def test_by_hand():
    """0.6 and 0.1 for the right label: 0.35 together, which the second label beats with 0.55."""
    one, other = (predictions(np.log([row])) for row in ([0.6, 0.3, 0.1], [0.1, 0.8, 0.1]))
    found = ensemble([one, other], "accuracy")
    assert found.probabilities[0] == pytest.approx([0.35, 0.55, 0.1])
    assert (found.prediction, found.score.tolist()) == (["yes"], [0.0])
    assert found.loss == pytest.approx([-np.log(0.35)])
    assert found.probabilities.dtype == np.float32


def test_where_labels_have_an_order_it_is_the_median_as_each_run_has_it():
    """0.4, 0.35 and 0.25 together: the first is the likeliest, and half lies beyond it."""
    task = Classification(Classification.Options(type="classification", ordinal=list(LABELS)))
    stores = [predictions(np.log([row])) for row in ([0.4, 0.3, 0.3], [0.4, 0.4, 0.2])]
    assert ensemble(stores, "accuracy").prediction == ["no"]
    found = ensemble(stores, "accuracy", task.choose)
    assert (found.prediction, found.score.tolist()) == (["yes"], [0.0])
    task = Classification(Classification.Options(type="classification"))
    assert ensemble(stores, "accuracy", task.choose).prediction == ["no"]


logits = arrays(np.float32, (4, 3), elements=st.floats(-30, 30, width=32))


@given(logits, st.integers(1, 7))
def test_of_identical_predictions_it_is_the_prediction(values, count):
    one = predictions(values)
    assert same(ensemble([one] * count, "accuracy"), one)


@given(st.lists(logits, min_size=2, max_size=5), st.randoms())
def test_order_does_not_matter(models, random):
    stores = [predictions(values) for values in models]
    found, other = ensemble(stores, "accuracy"), ensemble(random.sample(stores, len(stores)), "accuracy")
    assert found.loss == pytest.approx(other.loss)
    assert np.allclose(found.probabilities, other.probabilities, rtol=1e-6)


@given(st.lists(logits, min_size=2, max_size=5))
def test_its_loss_is_that_of_the_mean_probability_and_at_most_the_mean_loss(models):
    """The second by Jensen's inequality."""
    stores = [predictions(values, right=[0, 1, 2, 1]) for values in models]
    found = ensemble(stores, "accuracy")
    likelihood = np.mean([np.exp(-store.loss) for store in stores], axis=0)
    assert found.loss == pytest.approx(-np.log(likelihood))
    assert np.all(found.loss <= np.mean([store.loss for store in stores], axis=0) + 1e-9)


def test_likelihoods_too_small_for_float32_still_count():
    [loss] = ensemble([predictions([[-200.0, 0.0, 0.0]]), predictions([[-300.0, 0.0, 0.0]])], "accuracy").loss
    assert loss == pytest.approx(200 + 2 * np.log(2))


def test_what_does_not_fit_together_is_refused():
    one, two = predictions([[1.0, 0.0, 0.0]]), predictions([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    with pytest.raises(ValueError, match="different examples or labels"):
        ensemble([one, two], "accuracy")
    with pytest.raises(ValueError, match="different examples or labels"):
        ensemble([one, replace(one, labels=("so", "no", "yes"))], "accuracy")
    with pytest.raises(ValueError, match="no probabilities"):
        ensemble([replace(one, probabilities=None)], "accuracy")
