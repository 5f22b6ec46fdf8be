"""The split of the seeds' spread, against answers worked out by hand and simulations with a known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from finetune.stats import sd_factors, spread

matrices = st.tuples(st.integers(2, 6), st.integers(2, 7)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(0, 4).map(float))
)


def test_by_hand():
    # Runs score 1/2 and 1/2: no raw spread. Each example varies by 1/2: floor (1/2 + 1/2) / 4.
    found = spread([[1, 0], [0, 1]])
    assert (found.sd, found.sd_floor) == (0.0, 0.5)
    assert found.sd_corrected == 0.0 and found.clipped
    # Runs score 1 and 0, raw variance 1/2; 2/1 * (1/2 - 1/4) = 1/2.
    found = spread([[1, 1], [0, 0]])
    assert found.sd_corrected**2 == pytest.approx(0.5) and not found.clipped


def test_clusters_by_hand():
    """Examples 0 and 2 are one document: sums 2, 0 (variance 2) and 1, 1 (variance 0); floor 2/9, raw 2/9."""
    found = spread([[1, 1, 1], [0, 1, 0]], clusters=[5, 3, 5])
    assert found.sd**2 == pytest.approx(2 / 9) and found.sd_floor**2 == pytest.approx(2 / 9)
    assert found.sd_corrected == pytest.approx(0.0, abs=1e-8)
    # Sums 2, 0 and 1, 0: floor (2 + 1/2)/9, raw 1/2; of 9 pairs 4 are in different clusters: (1/2 - 5/18) / (4/9).
    assert spread([[1, 1, 1], [0, 0, 0]], clusters=[5, 3, 5]).sd_corrected ** 2 == pytest.approx(1 / 2)


@given(matrices, st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_it_is_the_mean_covariance_of_two_examples_of_different_clusters(matrix, clusters):
    clusters = np.array(clusters[: matrix.shape[1]])
    apart = clusters[:, None] != clusters
    found = spread(matrix, clusters)
    if not apart.any():
        assert found.sd_corrected is None and "one group" in found.reason
        return
    mean = np.cov(matrix, rowvar=False)[apart].mean()
    assert found.sd_corrected**2 == pytest.approx(max(0, mean), abs=1e-9)
    assert found.sd**2 - found.sd_floor**2 == pytest.approx(mean * apart.mean(), abs=1e-9)


@given(matrices)
def test_clusters_of_one_change_nothing(matrix):
    plain, clustered = spread(matrix), spread(matrix, clusters=np.arange(matrix.shape[1]))
    for name in ("sd", "sd_floor", "sd_corrected"):
        assert getattr(clustered, name) ** 2 == pytest.approx(getattr(plain, name) ** 2, abs=1e-12)


@given(matrices, st.randoms())
def test_order_of_seeds_and_of_examples_does_not_matter(matrix, random):
    rows, columns = (random.sample(range(size), size) for size in matrix.shape)
    plain, shuffled = spread(matrix), spread(matrix[rows][:, columns])
    assert shuffled.sd_floor == pytest.approx(plain.sd_floor)
    assert shuffled.sd_corrected**2 == pytest.approx(plain.sd_corrected**2, abs=1e-12)


@given(matrices, st.floats(0.5, 100), st.floats(-100, 100))
def test_change_of_unit(matrix, factor, offset):
    plain, moved = spread(matrix), spread(matrix * factor + offset)
    for name in ("sd", "sd_floor", "sd_corrected"):
        expected = (getattr(plain, name) * factor) ** 2
        assert getattr(moved, name) ** 2 == pytest.approx(expected, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_interval_is_that_of_the_raw_variance_less_the_floor(noise):
    matrix = np.random.default_rng(1).normal(size=(5, 400)) + np.array([-1, 0, 1, 0.5, -0.5])[:, None] * noise
    found = spread(matrix, level=0.9)
    raw = found.sd * np.array(sd_factors(5, 0.9))
    expected = np.sqrt(np.maximum(0, 400 / 399 * (raw**2 - found.sd_floor**2)))
    assert found.sd_ci == pytest.approx(raw) and found.sd_corrected_ci == pytest.approx(expected)
    assert found.sd_corrected_ci[0] <= found.sd_corrected <= found.sd_corrected_ci[1]


def test_examples_that_belong_together_have_a_higher_floor():
    """Ten sentences a document, all right or all wrong: as much noise as a tenth of the examples has."""
    documents = np.random.default_rng(2).random((8, 60)) < 0.8
    matrix, clusters = np.repeat(documents, 10, axis=1), np.repeat(np.arange(60), 10)
    clustered = spread(matrix, clusters)
    assert clustered.sd_floor == pytest.approx(spread(documents).sd_floor)
    assert clustered.sd_corrected == pytest.approx(spread(documents).sd_corrected)
    assert spread(matrix).sd_floor == pytest.approx(clustered.sd_floor / 10**0.5)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((0, 4), "no run"), ((1, 4), "one seed"), ((2, 1), "one example"), ((3, 0), "no run")],
)
def test_too_little_for_a_spread(shape, reason):
    found = spread(np.ones(shape))
    assert (found.sd_corrected, found.sd_corrected_ci) == (None, None) and reason in found.reason
