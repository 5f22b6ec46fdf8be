"""The interval of the best of several seeds: a band around the distribution, whatever its shape."""

import numpy as np
import pytest
from scipy import stats

from finetune.stats import expected_best, expected_best_intervals

SCORES = [0.8, 0.82, 0.81, 0.8, 0.83]


def test_the_ends_are_those_of_the_band_by_hand():
    """One of two draws: the mean, whose ends leave as much of the distribution at the bounds as the band is high."""
    [first, second] = expected_best_intervals([0.4, 0.6], (0.0, 1.0))
    reach = stats.kstwo.ppf(0.95, 2)  # 0.84: more than a half, so that either score may never come again
    low = 1 - (0.4 * reach + 0.6)  # at most: all of it under 0.4 but 1 - reach
    high = 1 - 0.4 * (1 - reach)  # at least: 1 - reach of it at 0.6 or below
    assert first == pytest.approx((low, high))
    assert second[0] == pytest.approx(1 - (0.4 * reach**2 + 0.6)) and second[1] > first[1]


def test_the_interval_holds_the_estimate_and_rises_with_the_draws():
    ends = expected_best_intervals(SCORES, (0.0, 1.0))
    for value, (low, high) in zip(expected_best(SCORES), ends, strict=True):
        assert 0 <= low <= value <= high <= 1
    lows, highs = zip(*ends, strict=True)
    assert list(lows) == sorted(lows) and list(highs) == sorted(highs)


def test_of_a_loss_it_is_the_mirror_image():
    turned = expected_best_intervals(SCORES, (0.0, 1.0), higher_is_better=False)
    mirrored = expected_best_intervals([1 - score for score in SCORES], (0.0, 1.0))
    assert turned == [pytest.approx((1 - high, 1 - low)) for low, high in mirrored]


def test_it_covers_the_best_of_new_seeds_whatever_their_distribution():
    """A beta distribution far from normal; the best of five of it, by a million draws."""
    rng, hits = np.random.default_rng(0), 0
    truth = rng.beta(0.5, 0.7, (200_000, 5)).max(axis=1).mean()
    for _ in range(400):
        low, high = expected_best_intervals(rng.beta(0.5, 0.7, 8), (0.0, 1.0))[4]
        hits += low <= truth <= high
    assert hits / 400 >= 0.95
