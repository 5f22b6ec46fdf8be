"""The variance over seeds and examples: by hand, against actual draws, against SciPy's and statsmodels' special cases,
and by simulation with a known truth.

MultiBERTs' published difference (SQuAD 2.0 EM, .0254) cannot be held against ours: it needs the predictions of their
25 models.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats.families import AllPairs, Several
from finetune.stats.multibootstrap import (
    Uncertainty,
    by_cluster,
    uncertainty_of_difference,
    uncertainty_of_mean,
)


def matrices(runs=(2, 5), examples=(2, 12)):
    """Per-example scores in {0, 1/4, ..., 1} that no seed of ours has a hand in."""
    shape = st.tuples(st.integers(*runs), st.integers(*examples))
    return shape.flatmap(
        lambda s: st.lists(st.integers(0, 4), min_size=s[0] * s[1], max_size=s[0] * s[1]).map(
            lambda values: np.array(values, dtype=float).reshape(s) / 4
        )
    )


def test_by_hand():
    """Seeds' means 1.5 and 4.5, examples' 2 and 4, and ± 0.5 left: A = 9/4, B = 1, C = 1/4."""
    found = uncertainty_of_mean([[1, 2], [3, 6]])
    assert (found.seeds, found.examples) == pytest.approx((2.25, 0.75))
    assert (found.df_seeds, found.df_examples) == (1, 1) and found.se == pytest.approx(3**0.5)


def drawn(matrix, rng, draws):
    """What MultiBERTs do: seeds and examples with replacement, together; the mean of each draw."""
    runs, n = matrix.shape
    seeds = rng.multinomial(runs, [1 / runs] * runs, draws) / runs
    examples = rng.multinomial(n, [1 / n] * n, draws) / n
    return np.einsum("bs,se,be->b", seeds, matrix, examples)


def test_it_is_what_draws_converge_to_freed_of_their_bias():
    rng = np.random.default_rng(0)
    runs, n = 4, 30
    matrix = 2 * rng.normal(size=(runs, 1)) + 3 * rng.normal(size=n) + 4 * rng.normal(size=(runs, n))
    means, by_example = matrix.mean(axis=1), matrix.mean(axis=0)
    left = matrix - means[:, None] - by_example + matrix.mean()
    a, b, c = means.var() / runs, by_example.var() / n, (left**2).sum() / (runs * n) ** 2
    assert drawn(matrix, rng, 100_000).var() == pytest.approx(a + b + c, rel=0.02)
    free_a, free_b = a * runs / (runs - 1), b * n / (n - 1)
    free_c = c * runs * n / ((runs - 1) * (n - 1))
    found = uncertainty_of_mean(matrix)
    assert found.se**2 == pytest.approx(free_a + free_b - free_c)


def test_one_column_is_students_t():
    scores = np.random.default_rng(1).normal(size=(6, 1))
    found, expected = uncertainty_of_mean(scores), stats.ttest_1samp(scores[:, 0], 0)
    assert found.p_value(scores.mean()) == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.9)
    assert found.half_width(0.9) == pytest.approx((high - low) / 2)


def test_two_columns_are_welchs_t():
    rng = np.random.default_rng(2)
    left, right = rng.normal(0.5, 1, (4, 1)), rng.normal(0, 3, (9, 1))
    expected = stats.ttest_ind(left[:, 0], right[:, 0], equal_var=False)
    found = uncertainty_of_difference(left, right)
    assert found.p_value(left.mean() - right.mean()) == pytest.approx(expected.pvalue)
    assert found.df_seeds == pytest.approx(expected.df)


def test_seeds_that_agree_leave_the_paired_test_of_the_examples():
    left, right = np.random.default_rng(3).random((2, 40))
    found = uncertainty_of_mean(np.tile(left - right, (5, 1)))
    assert found.seeds == pytest.approx(0, abs=1e-20)
    assert found.p_value((left - right).mean()) == pytest.approx(stats.ttest_rel(left, right).pvalue)


def test_examples_that_agree_leave_the_test_of_the_seeds():
    seeds = np.random.default_rng(4).normal(size=5)
    found = uncertainty_of_mean(np.tile(seeds[:, None], (1, 40)))
    assert found.examples == pytest.approx(0, abs=1e-20)
    assert found.p_value(seeds.mean()) == pytest.approx(stats.ttest_1samp(seeds, 0).pvalue)


def test_scores_that_tie_are_not_certainty():
    """Both runs have half of four examples right, but not the same: A is 0, and B - C below 0."""
    tied = np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    found = uncertainty_of_mean(tied)
    assert found.seeds == pytest.approx(2 / (2 * 1 * 4 * 3)) and found.examples == 0
    both = uncertainty_of_difference(tied, tied[::-1], ([0, 1], [0, 1]))
    assert both.seeds == pytest.approx(uncertainty_of_mean(tied - tied[::-1]).seeds) and both.seeds > 0


def test_between_the_two_the_p_value_lies_between_theirs():
    seeds, examples = Uncertainty(1, 0, 4, 99), Uncertainty(0, 1, 4, 99)
    half = Uncertainty(0.5, 0.5, 4, 99)
    assert half.p_value(2) == pytest.approx((seeds.p_value(2) + examples.p_value(2)) / 2)
    assert examples.half_width(0.95) < half.half_width(0.95) < seeds.half_width(0.95)


@given(
    st.floats(0.001, 1), st.floats(0, 1), st.integers(1, 20), st.integers(20, 500), st.floats(0, 5),
    st.sampled_from([0.8, 0.95, 0.99]),
)  # fmt: skip
def test_the_interval_excludes_zero_just_where_p_is_small(seeds, examples, df_seeds, df_examples, mean, level):
    found = Uncertainty(seeds, examples, df_seeds, df_examples)
    p_value, half = found.p_value(mean), found.half_width(level)
    if abs(p_value - (1 - level)) > 1e-9:
        assert (mean > half) == (p_value < 1 - level)


@given(matrices(), st.randoms())
def test_order_of_seeds_and_examples_does_not_matter(matrix, random):
    runs, examples = (random.sample(range(size), size) for size in matrix.shape)
    one, other = uncertainty_of_mean(matrix), uncertainty_of_mean(matrix[runs][:, examples])
    assert (one.seeds, one.examples) == pytest.approx((other.seeds, other.examples), abs=1e-12)


@given(matrices(), st.floats(-3, 3).filter(lambda scale: abs(scale) > 0.01), st.floats(-5, 5))
def test_an_affine_change_of_scale_scales_the_error(matrix, scale, shift):
    one, other = uncertainty_of_mean(matrix), uncertainty_of_mean(scale * matrix + shift)
    assert other.se == pytest.approx(abs(scale) * one.se, abs=1e-7)


def everyone(count):
    return list(range(count)), list(range(count))


@given(matrices())
def test_two_sides_that_are_one_are_never_surer_than_pairs_of_equals(matrix):
    """Unpaired, the seeds' parts of both sides add up; a variant against itself, paired, has no noise at all."""
    assert uncertainty_of_difference(matrix, matrix, everyone(len(matrix))).se == pytest.approx(0, abs=1e-8)
    assert uncertainty_of_difference(matrix, matrix).seeds == pytest.approx(2 * uncertainty_of_mean(matrix).seeds)


@given(matrices(runs=(3, 3), examples=(6, 6)), matrices(runs=(3, 3), examples=(6, 6)))
def test_where_all_are_pairs_it_is_that_of_the_pairs_differences(left, right):
    found = uncertainty_of_difference(left, right, everyone(3))
    wanted = uncertainty_of_mean(left - right)
    alike = min(left.mean(axis=1).std(), right.mean(axis=1).std()) > 0
    if alike:
        assert (found.seeds, found.examples) == pytest.approx((wanted.seeds, wanted.examples), abs=1e-12)
        assert found.df_seeds == wanted.df_seeds == 2


def test_partial_overlap_is_derricks():
    """T_new2 of Derrick et al. (2017), written out: unequal variances, paired and independent observations."""
    rng = np.random.default_rng(6)
    both = rng.normal(size=(4, 1))
    left = both[[0, 1, 2, 3, 0]] + rng.normal(size=(5, 1))
    right = np.vstack([both[:3] + 2 * rng.normal(size=(3, 1)), 2 * rng.normal(size=(4, 1))])
    x, y, pairs = left[:, 0], right[:, 0], ([0, 1, 2], [0, 1, 2])
    n1, n2, nc = len(x), len(y), 3
    r = np.corrcoef(x[:3], y[:3])[0, 1]
    v1, v2 = x.var(ddof=1), y.var(ddof=1)
    variance = v1 / n1 + v2 / n2 - 2 * r * (v1 * v2) ** 0.5 * nc / (n1 * n2)
    gamma = (v1 / n1 + v2 / n2) ** 2 / ((v1 / n1) ** 2 / (n1 - 1) + (v2 / n2) ** 2 / (n2 - 1))
    alone = (n1 - nc) + (n2 - nc)
    free = (nc - 1) + (gamma - nc + 1) / (alone + 2 * nc) * alone
    found = uncertainty_of_difference(left, right, pairs)
    assert found.se**2 == pytest.approx(variance) and found.df_seeds == pytest.approx(free)


def test_overlap_adds_to_one_over_the_runs():
    rng = np.random.default_rng(7)
    left, right = rng.normal(size=(2, 5, 1))
    plain, wide = (uncertainty_of_mean(left, overlap).seeds for overlap in (0.0, 0.4))
    assert wide == pytest.approx(plain * (1 / 5 + 0.4) / (1 / 5))
    for pairs in (None, everyone(5)):
        plain, wide = (uncertainty_of_difference(left, right, pairs, overlap).seeds for overlap in (0.0, 0.4))
        assert wide == pytest.approx(plain * (1 / 5 + 0.4) / (1 / 5))


@pytest.mark.parametrize("common", [0, 3, 4])
def test_the_variance_of_a_difference_is_unbiased(common):
    """Three thousand studies with known components: seeds that both sides share, their own, examples, and the rest.

    Where only some are pairs, their few show too low a correlation, which makes it up to a tenth too large.
    """
    rng, found, means = np.random.default_rng(common), [], []
    for _ in range(3000):
        alike, each = rng.normal(size=common), rng.normal(0, 1.5, 30)
        sides = []
        for runs in (4, 6):
            seeds = np.concatenate([alike, rng.normal(size=runs - common)]) + 0.5 * rng.normal(size=runs)
            sides.append(seeds[:, None] + each + rng.normal(0, 1, 30) + rng.normal(0, 2, (runs, 30)))
        noise = uncertainty_of_difference(*sides, everyone(common))
        found.append(noise.seeds + noise.examples)
        means.append(sides[0].mean() - sides[1].mean())
    too_large = np.mean(found) / np.var(means) - 1
    assert -0.08 < too_large < (0.15 if 0 < common < 4 else 0.08)


def test_a_family_makes_the_interval_wider_and_the_p_value_larger():
    found = Uncertainty(1, 0.5, 4, 99)
    alone, all_pairs, sidak = (found.half_width(0.95, family) for family in (Several(), AllPairs(5), Several(10)))
    assert alone < all_pairs < sidak
    for family in (Several(), AllPairs(5), Several(10)):
        half = found.half_width(0.95, family)
        assert found.p_value(half, family) == pytest.approx(0.05) and found.detectable(0.95, 0.8, family) > half


def test_clusters_are_statsmodels_clusters():
    """OLS on a constant with cov_type="cluster": variance of the mean .86767578, times 4/3 for four clusters."""
    values, clusters = [1.0, 0, 2, 5, 3, 3, 8, 1], [0, 0, 1, 1, 1, 2, 2, 3]
    columns = by_cluster([values, values], clusters)
    assert columns.shape == (2, 4) and columns.mean(axis=1) == pytest.approx([np.mean(values)] * 2)
    assert uncertainty_of_mean(columns).se ** 2 == pytest.approx(0.86767578 * 4 / 3)


@given(matrices(), st.integers(2, 4), st.randoms())
def test_copies_of_examples_in_one_cluster_add_nothing(matrix, copies, random):
    order = random.sample(range(copies * matrix.shape[1]), copies * matrix.shape[1])
    clusters = np.repeat(np.arange(matrix.shape[1]), copies)[order]
    copied = np.repeat(matrix, copies, axis=1)[:, order]
    plain, clustered = uncertainty_of_mean(matrix), uncertainty_of_mean(by_cluster(copied, clusters))
    assert (clustered.seeds, clustered.examples) == pytest.approx((plain.seeds, plain.examples), abs=1e-12)
    assert clustered.df_examples == plain.df_examples


def test_detectable_is_statsmodels_for_pairs():
    """TTestPower().solve_power(nobs=6, power=.8, alpha=.05) is 1.4345451 SDs."""
    assert Uncertainty(1 / 6, 0, 5, 1).detectable(0.95, 0.8) == pytest.approx(1.4345451)


def test_detectable_differences_are_seen_as_often_as_said():
    rng, runs, n, draws = np.random.default_rng(5), 5, 200, 20_000
    truth = Uncertainty(0.5, 0.5, runs - 1, n - 1).detectable(0.95, 0.8)
    seeds = 0.5 * rng.chisquare(runs - 1, draws) / (runs - 1)
    examples = 0.5 * rng.chisquare(n - 1, draws) / (n - 1)
    means = rng.normal(truth, 1, draws)
    seen = [
        Uncertainty(a, b, runs - 1, n - 1).p_value(m) < 0.05 for a, b, m in zip(seeds, examples, means, strict=True)
    ]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.04)


REGIMES = {
    "examples": (0.02, 1.0, 0.3),
    "seeds": (0.6, 0.1, 0.3),
    "neither": (0.0, 0.0, 1.0),
    "both": (0.3, 0.5, 0.5),
}
"""What makes the noise: SDs of a seed's, an example's, and a single answer's deviation, on the scale of a probit."""


def answers(rng, runs, n, regime, variants):
    """Right or wrong by (runs, n) for some equally good variants on the same examples."""
    seed, example, answer = REGIMES[regime]
    difficulty = rng.normal(1.3, 1, n)
    for _ in range(variants):
        noise = seed * rng.normal(size=(runs, 1)) + example * rng.normal(size=n) + answer * rng.normal(size=(runs, n))
        yield (difficulty + noise > 0).astype(float)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("runs", [3, 5, 10])
def test_intervals_cover_and_small_p_values_are_rare(runs, regime):
    """1,500 studies each; the true difference is zero. Three standard errors are 1.7 points at 95 %, 0.55 at 0.5 %."""
    rng, p_values = np.random.default_rng(6), []
    for _ in range(1500):
        left, right = answers(rng, runs, 60, regime, 2)
        found = uncertainty_of_mean(left - right)
        p_values.append(found.p_value(left.mean() - right.mean()) if found.se > 1e-12 else 1.0)
    assert 0.93 < np.mean(np.array(p_values) >= 0.05) < 0.985
    assert np.mean(np.array(p_values) < 0.005) < 0.0105
