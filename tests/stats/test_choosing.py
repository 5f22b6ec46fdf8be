"""The worth of choosing by validation, held against draws."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.stats import expected_best, expected_chosen


def test_it_is_the_mean_over_draws():
    rng = np.random.default_rng(0)
    validation, scores = rng.normal(size=6), rng.normal(size=6)
    validation[3] = validation[1]  # which are alike
    found = expected_chosen(validation, scores)
    for k in (1, 2, 4):
        draws = rng.integers(0, 6, (200_000, k))
        tied = validation[draws] == validation[draws].max(1, keepdims=True)
        chosen = np.where(tied, scores[draws], 0).sum(1) / tied.sum(1)
        # Of several draws that are alike each counts as often as it was drawn: their mean is that of the two seeds.
        assert found[k - 1] == pytest.approx(chosen.mean(), abs=0.01)


def test_one_seed_is_the_mean_and_choosing_by_the_score_itself_is_the_best():
    scores = np.array([0.7, 0.9, 0.8])
    assert expected_chosen([3, 1, 2], scores)[0] == pytest.approx(0.8)
    np.testing.assert_allclose(expected_chosen(scores, scores), expected_best(scores))
    np.testing.assert_allclose(expected_chosen(-scores, scores, False), expected_best(scores))


def test_a_loss_is_better_where_it_is_lower():
    assert expected_chosen([0.1, 0.9], [5.0, 1.0], higher_is_better=False)[1] == pytest.approx(4.0)


@pytest.mark.parametrize("validation", [[1.0], [np.nan, 1.0]])
def test_what_is_no_number_is_our_own_mistake(validation):
    with pytest.raises(ValueError, match="finite validation score"):
        expected_chosen(validation, [1.0, 2.0])


def test_no_seeds():
    assert expected_chosen([], []).shape == (0,)
