"""Which of two scatters more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats.dispersion import dispersion, spread_verdict

scores = st.lists(st.integers(0, 100), min_size=3, max_size=10, unique=True)


def test_it_is_scipys_levene_and_fishers_f():
    left, right = np.linspace(0, 1, 6), np.linspace(0, 4, 9)  # flatter than normal, so nothing is lowered
    found = dispersion(left, right, level=0.9)
    assert found.p_value == pytest.approx(stats.levene(left, right, center="median").pvalue)
    ratio = left.var(ddof=1) / right.var(ddof=1)
    low, high = ratio / stats.f.ppf(0.95, 5, 8), ratio / stats.f.ppf(0.05, 5, 8)
    assert found.ratio == pytest.approx(ratio**0.5) and found.ci == pytest.approx((low**0.5, high**0.5))


def test_a_heavy_tail_widens_the_interval():
    plain, tailed = np.linspace(-1, 1, 20), np.r_[np.linspace(-0.1, 0.1, 19), -9]
    other = np.linspace(-2, 2, 20)

    def width(found):
        return np.log(found.ci[1] / found.ci[0])

    assert width(dispersion(tailed, other)) > 1.3 * width(dispersion(plain, other))


@given(scores, scores, st.randoms())
def test_order_does_not_matter_and_exchanging_sides_mirrors(left, right, random):
    there, back = dispersion(left, right), dispersion(right, random.sample(left, len(left)))
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.ci == pytest.approx((1 / back.ci[1], 1 / back.ci[0]))
    assert there.p_value == pytest.approx(back.p_value)


@given(scores, scores, st.floats(0.01, 100), st.floats(-5, 5))
def test_the_unit_does_not_matter(left, right, scale, shift):
    there, other = (
        dispersion(left, right),
        dispersion(np.array(left) * scale + shift, np.array(right) * scale + shift),
    )
    assert there.ratio == pytest.approx(other.ratio) and there.p_value == pytest.approx(other.p_value)


def test_what_the_seeds_do_not_allow_is_none():
    assert dispersion([1], [1, 2]).p_value is None
    none = dispersion([1, 1, 1], [1, 2, 3])
    assert none.ratio is None and none.ci is None and none.p_value is not None
    assert dispersion([1, 1], [2, 2]).p_value is None


def test_the_verdict_needs_both():
    left, right = np.linspace(0.80, 0.81, 10), np.linspace(0.5, 0.9, 10)
    found, back = dispersion(left, right), dispersion(right, left)
    assert spread_verdict(found.ci, found.p_value) == "more stable"
    assert spread_verdict(back.ci, back.p_value) == "less stable"
    assert spread_verdict(found.ci, 0.06) == spread_verdict((0.5, 1.2), 0.001) == "undecided"
    assert spread_verdict(None, None) == "undecided"


def test_alike_spreads_are_rarely_told_apart_and_the_interval_covers():
    rng = np.random.default_rng(0)
    for n in (5, 10):
        found = [dispersion(*rng.normal(size=(2, n))) for _ in range(800)]
        assert np.mean([f.ci[0] <= 1 <= f.ci[1] for f in found]) == pytest.approx(0.95, abs=0.025)
        assert np.mean([spread_verdict(f.ci, f.p_value) != "undecided" for f in found]) < 0.05
