"""Calibration against answers worked out by hand, SciPy's and scikit-learn's, and models known to be calibrated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss

from finetune.stats import calibration as measures

FOUR = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
RIGHT = np.array([0, 1, 1, 0])


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn(n, labels=3, temperature=1.0, spread=2.0, seed=0):
    """Probabilities, and right labels drawn from them, so that they are calibrated; then the logits are multiplied."""
    generator = rng(seed)
    logits = generator.normal(scale=spread, size=(n, labels))
    right = (softmax(logits, axis=1).cumsum(axis=1) > generator.random((n, 1))).argmax(axis=1)
    return softmax(logits * temperature, axis=1), right


def test_every_measure_by_hand():
    found = measures.calibration(FOUR, RIGHT, rng())
    assert found.nll == pytest.approx(-np.log([0.9, 0.2, 0.7, 0.4]).mean())
    # (.1² + .1²) + (.8² + .8²) + (.3² + .3²) + (.6² + .6²), over four
    assert found.brier == pytest.approx((0.02 + 1.28 + 0.18 + 0.72) / 4)
    # four confidences in four bins: right at .9 and .7, wrong at .8 and .6
    assert found.ece == found.ece_equal_mass == pytest.approx((0.1 + 0.8 + 0.3 + 0.6) / 4)
    assert (
        found.ece_noise
        == found.ece_equal_mass_noise
        == pytest.approx(np.sqrt(2 / np.pi) * np.sqrt([0.09, 0.16, 0.21, 0.24]).sum() / 4)
    )


def test_the_losses_are_scikit_learns():
    probabilities, right = drawn(200, labels=2)
    found = measures.calibration(probabilities, right, rng())
    assert found.nll == pytest.approx(log_loss(right, probabilities))
    assert found.brier == pytest.approx(2 * brier_score_loss(right, probabilities[:, 1]))  # it has one side alone


def test_a_bin_ends_with_its_edge():
    found = measures.by_width([0.2, 0.2 + 1e-9, 1.0], [1, 0, 1], bins=5)
    assert found.count.tolist() == [1, 1, 0, 0, 1]
    assert found.accuracy.tolist() == [1, 0, 0, 0, 1]


def test_equal_mass_keeps_equal_confidences_together():
    assert measures.by_mass(np.arange(1, 31) / 30, np.ones(30), bins=3).count.tolist() == [10, 10, 10]
    together = measures.by_mass(np.full(30, 0.6), np.arange(30) % 5 < 3, bins=3)
    assert together.count.max() == 30 and together.error == pytest.approx(0), "0.6 sure, and right in three of five"


def test_a_calibrated_model_has_the_error_that_its_size_causes():
    found = [measures.calibration(*drawn(500, seed=seed), rng()) for seed in range(60)]
    for name in ("ece", "ece_equal_mass"):
        seen, by_chance = ([getattr(each, name + end) for each in found] for end in ("", "_noise"))
        assert np.mean(seen) == pytest.approx(np.mean(by_chance), rel=0.05), name
    assert np.mean([each.ece_equal_mass_noise - each.ece_noise for each in found]) > 0.003, "the more bins are in use"
    large = measures.calibration(*drawn(50_000), rng())
    assert large.ece < 0.01 and large.ece_noise < 0.005 and large.temperature == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("truth", [0.5, 3.0])
def test_the_temperature_is_recovered(truth):
    probabilities, right = drawn(20_000, temperature=truth)
    found = measures.calibration(probabilities, right, rng())
    assert found.temperature == pytest.approx(truth, rel=0.04)
    plain = measures.calibration(*drawn(20_000), rng())
    assert found.nll_scaled == pytest.approx(plain.nll, abs=1e-3) and found.nll > found.nll_scaled + 0.02


@pytest.mark.parametrize("labels", [2, 5])
def test_the_fit_is_scipys_minimum_over_the_logits(labels):
    probabilities, right = drawn(80, labels, temperature=1.7)
    logits, rows = np.log(probabilities), np.arange(80)

    def loss(log_temperature):
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[rows, right].mean()

    oracle = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8})
    margin = measures.margins(probabilities, right, -np.log(probabilities[rows, right]))
    fitted = measures.best_temperature(margin)
    assert fitted == pytest.approx(np.exp(oracle.x), rel=1e-3)
    assert measures.mean_loss(margin, fitted) == pytest.approx(oracle.fun, abs=1e-9)
    assert measures.mean_loss(margin) == pytest.approx(loss(0.0))


def test_each_half_is_scored_at_the_temperature_of_the_other():
    probabilities, right = drawn(101, temperature=2)
    loss = -np.log(probabilities[np.arange(101), right])
    margin = measures.margins(probabilities, right, loss)
    order = rng(7).permutation(101)
    first, second = margin[:, order[:50]], margin[:, order[50:]]
    warm, cold = measures.best_temperature(first), measures.best_temperature(second)
    temperature, scaled = measures.scaled(margin, rng(7))
    assert temperature == pytest.approx(np.sqrt(warm * cold))
    assert scaled == pytest.approx((50 * measures.mean_loss(first, cold) + 51 * measures.mean_loss(second, warm)) / 101)
    assert scaled != measures.scaled(margin, rng(8))[1], "other halves, another number"


def test_fits_that_have_no_end():
    faultless, hopeless = np.full((1, 10), -2.0), np.full((1, 10), 2.0)
    assert measures.best_temperature(faultless) == 1 / measures.HOTTEST
    assert measures.best_temperature(hopeless) == measures.HOTTEST
    assert measures.best_temperature(np.zeros((2, 10))) == 1.0, "uniform: no temperature changes anything"


def test_probabilities_rounded_to_zero_are_no_end_of_the_world():
    certain = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    found = measures.calibration(certain, [0, 0, 1, 1], rng(), loss=[0.0, 0.0, 120.0, 0.0])
    assert found.nll == 30.0 and found.ece == pytest.approx(0.25) and np.isfinite(found.nll_scaled)
    assert np.isfinite(measures.calibration(certain, [0, 0, 1, 1], rng()).nll)


def test_one_example_has_no_temperature():
    found = measures.calibration([[0.5, 0.5]], [0], rng())
    assert found.nll == pytest.approx(np.log(2)) and found.temperature is None and found.nll_scaled is None


@given(st.integers(2, 40), st.integers(2, 4), st.integers(0, 10_000))
def test_names_of_labels_do_not_matter(n, labels, seed):
    probabilities, right = drawn(n, labels, temperature=1.5, seed=seed)
    order = rng(seed).permutation(labels)
    plain = measures.calibration(probabilities, right, rng(1))
    renamed = measures.calibration(probabilities[:, order], np.argsort(order)[right], rng(1))
    found, wanted = (vars(each) | each.by_example | vars(each.bins) for each in (renamed, plain))
    for name in wanted.keys() - {"bins", "by_example"}:
        assert found[name] == pytest.approx(wanted[name], rel=1e-4), name


@given(st.integers(2, 60), st.integers(2, 4), st.integers(0, 10_000))
def test_ranges(n, labels, seed):
    found = measures.calibration(*drawn(n, labels, seed=seed), rng(seed))
    assert 0 <= found.brier <= 2 and 0 <= found.ece <= 1 and 0 <= found.ece_equal_mass <= 1 and found.nll >= 0
    assert 1 / measures.HOTTEST <= found.temperature <= measures.HOTTEST


def test_what_examples_add_has_every_measure_for_its_mean():
    probabilities, right = drawn(400, temperature=2.0)
    found = measures.calibration(probabilities, right, rng())
    parts = found.by_example
    assert set(parts) == {"nll", "brier", "ece", "ece_equal_mass"}
    for name, part in parts.items():
        assert part.shape == (400,) and part.mean() == pytest.approx(getattr(found, name)), name
