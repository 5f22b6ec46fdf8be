"""Crossed designs are orthogonal, and the spread of a known truth is traced back to its sources."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.stats import components
from finetune.stats.components import decompose, orthogonal_array, spare, variance_components
from finetune.stats.spread import spread

NAMES = ("init", "order", "dropout", "split", "noise")
DESIGNS = [(levels, factors) for levels in (2, 3, 4, 5) for factors in range(1, levels + 2)]


def design(levels, factors):
    return dict(zip(NAMES, orthogonal_array(levels, factors).T, strict=False))


@pytest.mark.parametrize(("levels", "factors"), DESIGNS)
def test_every_pair_of_levels_meets_exactly_once(levels, factors):
    array = orthogonal_array(levels, factors)
    assert array.shape == (levels**2, factors)
    for column in array.T:
        assert np.bincount(column, minlength=levels).tolist() == [levels] * levels
    for left, right in combinations(array.T, 2):
        assert sorted(zip(left.tolist(), right.tolist(), strict=True)) == list(product(range(levels), repeat=2))


def test_two_runs_share_at_most_one_level():
    """So an interaction, whatever levels it is of, is another one in every run."""
    for left, right in combinations(orthogonal_array(4, 5), 2):
        assert (left == right).sum() <= 1


def test_more_factors_than_there_are_directions_are_refused():
    with pytest.raises(AssertionError, match="3 levels can be crossed for at most 4 factors"):
        orthogonal_array(3, 5)
    with pytest.raises(AssertionError, match="2, 3, 4 and 5"):
        orthogonal_array(6, 2)


def test_degrees_of_freedom_that_are_left():
    assert [spare(3, 2), spare(3, 3), spare(3, 4)] == [4, 2, 0]
    assert [spare(4, 4), spare(4, 5), spare(5, 5)] == [3, 0, 4]


def test_two_sources_by_hand():
    """Rows 0 0, 2 2, 4 4: rows differ by two with the variance 4, of which no interaction takes away."""
    levels = {"init": [0, 0, 1, 1, 2, 2], "order": [0, 1, 0, 1, 0, 1]}
    # Columns differ by nothing; mean squares: init 8, order 0, rest 0.
    found = variance_components(np.array([0, 0, 2, 2, 4, 4.0])[:, None], levels)[:, 0]
    assert found == pytest.approx([4, 0, 0])
    # One value of 3 raised to 6: grand mean 2.5, rows 1.5, 2, 4... as below.
    values = np.array([0, 3, 2, 2, 4, 4.0])
    mean, rows, columns = 2.5, np.array([1.5, 2, 4]), np.array([2, 3.0])
    init, order = 2 * ((rows - mean) ** 2).sum() / 2, 3 * ((columns - mean) ** 2).sum() / 1
    rest = (((values.reshape(3, 2) - rows[:, None] - columns + mean) ** 2).sum()) / 2
    expected = [(init - rest) / 2, (order - rest) / 3, rest]
    assert variance_components(values[:, None], levels)[:, 0] == pytest.approx(expected)


def test_one_source_alone_is_the_one_way_analysis_of_variance():
    """The ratio of mean squares is SciPy's F."""
    values = np.random.default_rng(0).normal(size=(16, 1))
    levels = {"init": orthogonal_array(4, 1)[:, 0]}
    between, within = variance_components(values, levels)[:, 0]
    groups = [values[levels["init"] == level, 0] for level in range(4)]
    assert (4 * between + within) / within == pytest.approx(stats.f_oneway(*groups).statistic)


def simulate(rng, levels, factors, variances, rest, interaction=0.0, columns=1):
    """Scores (runs, columns) with random effects of those variances; interactions of the first two and of all."""
    array = orthogonal_array(levels, factors)
    values = rng.normal(0, rest**0.5, (len(array), columns))
    for column, variance in zip(array.T, variances, strict=True):
        values += rng.normal(0, variance**0.5, (levels, columns))[column]
    pairs = rng.normal(0, interaction**0.5, (levels, levels, columns))
    return values + pairs[array[:, 0], array[:, 1]]


@pytest.mark.parametrize(("levels", "factors"), [(3, 3), (4, 2), (4, 4), (5, 5)])
def test_components_are_unbiased_with_interactions_too(levels, factors):
    truth = np.array([4.0, 1.0, 0.25, 0.0, 2.0])[:factors]
    rng = np.random.default_rng([levels, factors])
    values = simulate(rng, levels, factors, truth, rest=1.0, interaction=0.5, columns=20_000)
    found = variance_components(values, design(levels, factors))
    error = found.std(axis=1, ddof=1) / found.shape[1] ** 0.5
    assert np.abs(found.mean(axis=1) - [*truth, 1.5]).max() < 4 * error.max()
    assert (np.abs(found.mean(axis=1) - [*truth, 1.5]) < 4 * error).all()
    assert (found[-2] < 0).any()  # by chance, which is why estimates are clipped


@pytest.mark.parametrize("truth", [(4.0, 1.0, 0.25), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_intervals_of_shares_cover_the_truth(truth, monkeypatch):
    monkeypatch.setattr(components, "DRAWS", 1000)
    rng, tries = np.random.default_rng(1), 300
    values, shares = simulate(rng, 4, 3, truth, rest=1.0, columns=tries), np.array([*truth, 1.0]) / (sum(truth) + 1.0)
    covered, total = np.zeros(4), 0
    for column in values.T:
        found = decompose(column, design(4, 3), rng)
        for place, part in enumerate((*found.sources, found.interactions)):
            low, high = part.ci
            covered[place] += low <= shares[place] <= high
        total += found.sd_ci[0] <= (sum(truth) + 1.0) ** 0.5 <= found.sd_ci[1]
    if not any(truth):  # a share of exactly 1, at the end of what is possible, is missed more often
        covered = covered[:-1]
    assert (covered / tries).min() > 0.92 and total / tries > 0.88


def test_negative_estimates_are_clipped_and_said():
    levels = design(3, 2)
    scores = np.array([0, 1, 2, 2, 0, 1, 1, 2, 0.0])  # a Latin square: rows and columns have equal means
    found = decompose(scores, levels, np.random.default_rng(0))
    assert all(
        part.clipped and part.estimate < 0 and part.variance == part.sd == part.share == 0 for part in found.sources
    )
    assert found.interactions.share == 1 and 0 < found.sd < found.interactions.sd
    assert found.largest is found.interactions


def test_shares_add_up_and_name_the_largest():
    rng = np.random.default_rng(3)
    scores = simulate(rng, 4, 3, (0.1, 9.0, 0.1), rest=0.1)[:, 0]
    found = decompose(scores, design(4, 3), rng)
    parts = (*found.sources, found.interactions)
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert found.largest.source == "order" and found.largest.share > 0.5
    assert [part.freedom for part in parts] == [3, 3, 3, 6]
    assert found.sd**2 == pytest.approx(sum(part.estimate for part in parts))
    assert found.sd_ci[0] < found.sd < found.sd_ci[1]
    assert (found.runs, found.mean, found.noise) == (16, pytest.approx(scores.mean()), None)


def test_equal_scores_have_nothing_to_decompose():
    found = decompose(np.full(9, 0.1 + 0.2), design(3, 2), np.random.default_rng(0))
    assert (found.sd, found.sd_ci, found.largest, found.noise_share) == (0, None, None, None)
    assert found.reason == components.ALIKE and found.sources[0].share is None


def test_the_same_generator_gives_the_same_intervals():
    scores = np.random.default_rng(5).normal(size=16)
    first, again, other = (decompose(scores, design(4, 2), np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert first.sources[0].estimate == other.sources[0].estimate


@given(st.floats(-5, 5), st.floats(0.1, 10), st.permutations(range(9)))
def test_units_and_the_order_of_runs_do_not_matter(shift, scale, order):
    scores, levels = np.random.default_rng(7).normal(size=(9, 1)), design(3, 3)
    moved = {source: column[order] for source, column in levels.items()}
    found = variance_components((shift + scale * scores)[order], moved)
    assert found == pytest.approx(scale**2 * variance_components(scores, levels), abs=1e-9)


def test_a_design_that_is_not_balanced_is_refused():
    with pytest.raises(AssertionError, match="'init' is not balanced"):
        variance_components(np.zeros((3, 1)), {"init": [0, 0, 1]})
    with pytest.raises(AssertionError, match="no degree of freedom"):
        variance_components(np.zeros((9, 1)), design(3, 4))


def correct_answers(rng, levels, chances, flips):
    """Right or wrong (runs, examples): each example by its chance; a share of them flips with the level of init."""
    array = orthogonal_array(levels, 2)
    matrix = (rng.random((len(array), len(chances))) < chances).astype(float)
    own = rng.random((levels, len(chances))) < flips
    return np.where(own[array[:, 0]], 1 - matrix, matrix)


def test_noise_of_the_test_set_is_jordans_in_all():
    """Runs that differ by nothing but each example's chance: all of the spread is noise, however the design looks."""
    rng, chances, found = np.random.default_rng(11), np.random.default_rng(2).random(200), []
    for _ in range(300):
        matrix = correct_answers(rng, 4, chances, 0.0)
        raw = variance_components(matrix.mean(axis=1)[:, None], design(4, 2)).sum()
        parts, noise = components._noise(
            variance_components(matrix.mean(axis=1)[:, None], design(4, 2))[:, 0], design(4, 2), list(matrix), True
        )
        found.append((raw, noise, parts.sum()))
    raw, noise, _ = np.mean(found, axis=0)
    truth = (chances * (1 - chances)).sum() / 200**2
    assert raw == pytest.approx(truth, rel=0.08) and noise == pytest.approx(truth, rel=0.08)


def test_noise_agrees_with_the_spread_of_plain_seeds():
    """One source with as many levels as runs would be plain seeds; their floor is the same sum."""
    matrix = correct_answers(np.random.default_rng(4), 4, np.full(60, 0.7), 0.1)
    found = decompose(matrix.mean(axis=1), design(4, 2), np.random.default_rng(0), list(matrix))
    plain = spread(matrix)
    assert found.noise == pytest.approx(plain.sd**2 - plain.sd_corrected**2, rel=0.25)
    parts = (*found.sources, found.interactions)
    assert sum(part.noise for part in parts) == pytest.approx(found.noise)
    assert found.noise_share == pytest.approx(found.noise / found.sd**2)


def test_noise_is_told_by_source():
    """Examples that flip with init alone put their noise there."""
    rng, sums = np.random.default_rng(8), np.zeros(3)
    for _ in range(40):
        matrix = correct_answers(rng, 4, (rng.random(300) < 0.7).astype(float), 0.3)
        found = decompose(matrix.mean(axis=1), design(4, 2), rng, list(matrix))
        sums += [part.noise for part in (*found.sources, found.interactions)]
    assert sums[0] / 40 == pytest.approx(0.3 * 0.7 / 300, rel=0.1)
    assert np.abs(sums[1:]).max() < 1e-9


def test_where_every_split_has_its_own_examples_noise_is_that_of_drawing_others():
    rng = np.random.default_rng(6)
    rows = [(rng.random(size) < 0.8).astype(float) for size in (50, 60, 50, 55) * 4]  # as many as there are
    found = decompose([row.mean() for row in rows], design(4, 2), rng, rows, same_examples=False)
    assert found.noise == pytest.approx(np.mean([row.var(ddof=1) / len(row) for row in rows]))
    assert all(part.noise is None and part.beyond_noise == part.variance for part in found.sources)
    one = decompose(rng.normal(size=16), design(4, 2), rng, [[1.0]] * 16)
    assert one.noise is None
