"""Exact tests: against all signs written out, SciPy, and statsmodels."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats.permutation import MOST_EXACT, RESAMPLES, mcnemar, relabellings, sign_flips


def rng():
    return np.random.default_rng(0)


def test_by_hand():
    """Of the sums ± 1 ± 2 ± 4, only 7 and -7 lie as far out as 7, and 5, -5 with them as far as 5."""
    assert sign_flips([1, 2, 4], rng()).p_value == 2 / 8
    assert sign_flips([-1, 2, 4], rng()).p_value == 4 / 8


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_it_counts_all_signs(values):
    sums = [abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
            for signs in product((1, -1), repeat=len(values))]  # fmt: skip
    expected = np.mean([total >= abs(sum(values)) for total in sums])
    assert sign_flips(values, rng()).p_value == pytest.approx(expected)
    # In another unit, where sums that are equal differ by rounding.
    assert sign_flips(np.array(values) / 30, rng()).p_value == pytest.approx(expected)


def test_it_is_scipys():
    left, right = np.random.default_rng(1).normal(size=(2, 8))
    expected = stats.permutation_test(
        (left, right), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flips(left - right, rng()).p_value == pytest.approx(expected.pvalue)


def test_five_pairs_cannot_be_significant():
    found = sign_flips([0.1, 0.2, 0.15, 0.3, 0.12], rng())
    assert found.p_value == found.smallest == 0.0625
    assert sign_flips([0.1] * 20, rng()).p_value == 2**-19


def test_many_pairs_are_drawn_and_agree_with_the_exact_test():
    values = np.random.default_rng(2).normal(0.4, 1, MOST_EXACT)
    exact = sign_flips(values, rng()).p_value
    drawn = sign_flips(np.append(values, 0.0), rng())  # a pair without a difference changes nothing
    assert drawn.p_value == pytest.approx(exact, abs=3 * (exact / RESAMPLES) ** 0.5)
    assert drawn.smallest == 1 / (RESAMPLES + 1)
    assert drawn.p_value != sign_flips(np.append(values, 0.0), np.random.default_rng(1)).p_value


def test_unpaired_by_hand():
    """Of the 6 ways to choose two of 1, 2, 3, 4, one has a sum as small as 1 + 2, one as large as 3 + 4."""
    found = relabellings([1, 2], [3, 4], rng())
    assert found.p_value == pytest.approx(2 / 6) and found.smallest == pytest.approx(2 / 6)


def test_unpaired_keeps_its_level():
    draws = np.random.default_rng(3).normal(size=(400, 8))
    p_values = [relabellings(row[:4], row[4:], rng()).p_value for row in draws]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.033)


def test_mcnemar_is_statsmodels_exact_test():
    """mcnemar([[20, 3], [9, 40]], exact=True).pvalue is .14599609."""
    left = [1] * 20 + [1] * 3 + [0] * 9 + [0] * 40
    right = [1] * 20 + [0] * 3 + [1] * 9 + [0] * 40
    assert mcnemar(left, right) == pytest.approx(0.14599609375)
    assert mcnemar(left, left) == 1.0
    assert mcnemar([0.5, 1], [1, 1]) is None
