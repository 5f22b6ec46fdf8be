"""Rank correlation: SciPy's number, and what each example adds."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from finetune.metrics import contributions, find

NAME = "cosine_spearman"


def table(said, wanted):
    return {"prediction": [f"{value:g}" for value in said], "reference": [f"{value:g}" for value in wanted]}


def test_it_is_scipys():
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 6, 60).astype(float)
    said = (wanted + rng.normal(0, 2, 60)).round(1)
    assert find(NAME).value(table(said, wanted)) == pytest.approx(spearmanr(said, wanted).statistic)


@pytest.mark.parametrize("column", [["1", "1", "1"], ["1", "nan", "2"], ["1", "two", "2"]])
def test_where_it_is_undefined_it_is_zero(column):
    for columns in ({"prediction": column, "reference": list("123")}, {"reference": column, "prediction": list("123")}):
        assert find(NAME).value(columns) == 0.0 and contributions(NAME, columns).tolist() == [0.0] * 3


def test_contributions_are_the_derivatives_by_an_examples_weight():
    """Central differences: every example 200 times, one of them once more or less; with ties in both columns."""
    said, wanted = np.array([0.3, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8]), np.array([1, 0, 3, 2, 2, 0, 5.0])
    found, times, n = contributions(NAME, table(said, wanted)), 200, len(said)
    value = find(NAME).value(table(said, wanted))
    assert found.mean() == pytest.approx(value)
    for example in range(n):
        both = []
        for change in (1, -1):
            weights = np.full(n, times)
            weights[example] += change
            both.append(find(NAME).value(table(np.repeat(said, weights), np.repeat(wanted, weights))))
        slope = (both[0] - both[1]) / (2 / times)
        assert found[example] == pytest.approx(value + n * slope, rel=1e-3, abs=1e-4)


def test_their_spread_is_what_resampling_finds():
    rng = np.random.default_rng(1)
    wanted = rng.normal(size=300)
    said = wanted + rng.normal(size=300)
    found = contributions(NAME, table(said, wanted)).std(ddof=1) / 300**0.5
    drawn = [spearmanr(said[rows], wanted[rows]).statistic for rows in rng.integers(300, size=(800, 300))]
    assert found == pytest.approx(np.std(drawn), rel=0.12)
