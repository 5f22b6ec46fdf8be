"""Pseudo-values: of a mean they are the numbers themselves, and their own mean is the number they are made of."""

import numpy as np
import pytest

from finetune.metrics.jackknife import GROUPS, pseudo_values


def test_those_of_a_mean_are_the_numbers():
    numbers = np.random.default_rng(0).normal(size=50)
    found = pseudo_values(float(numbers.mean()), 50, lambda kept: float(numbers[kept].mean()))
    assert found == pytest.approx(numbers)


@pytest.mark.parametrize("n", [2, 7, GROUPS, 3 * GROUPS + 5])
def test_their_mean_is_the_number_and_their_spread_that_of_the_statistic(n):
    numbers = np.random.default_rng(1).normal(5, 1, size=n)
    found = pseudo_values(float(numbers.mean()) ** 2, n, lambda kept: float(numbers[kept].mean()) ** 2)
    assert found.mean() == pytest.approx(numbers.mean() ** 2)
    if n > 100:  # by the delta method; of groups, it is known as well as so many groups tell
        assert found.std() == pytest.approx(2 * numbers.mean() * numbers.std(), rel=0.15)


def test_one_example_has_no_spread():
    assert pseudo_values(3.0, 1, lambda kept: 0.0).tolist() == [3.0]
