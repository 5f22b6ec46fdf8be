"""Disagreement, Fleiss' kappa and churn."""

import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.inter_rater import fleiss_kappa

from finetune.stats.agreement import agreement, churn, codes_of

tables = st.tuples(st.integers(2, 6), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 3))
)

WIKIPEDIA = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]]
WIKIPEDIA += [[7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
"""Votes of 14 raters for five categories on ten subjects, the worked example of the article on Fleiss' kappa: 0.210."""


def pairs(table):
    """Share of pairs of rows that differ, pair by pair."""
    runs = len(table)
    return np.mean([table[i] != table[j] for i in range(runs) for j in range(i)], axis=0)


def counts(table):
    return np.stack([(table == category).sum(axis=0) for category in range(table.max() + 1)], axis=1)


def by_votes(votes):
    return np.stack([np.repeat(np.arange(len(row)), row) for row in votes], axis=1)


def test_by_hand():
    """Three seeds, four examples, two categories with six votes each; two examples are divided, 2 to 1.

    Disagreement (0 + 2/3 + 2/3 + 0) / 4 = 1/3; P_e = 1/4 + 1/4; kappa = (2/3 - 1/2) / (1 - 1/2) = 1/3.
    """
    found = agreement([[0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]], references=[0, 0, 1, 0])
    assert churn([[0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]]) == pytest.approx([0, 2 / 3, 2 / 3, 0])
    assert found.disagreement == pytest.approx(1 / 3)
    assert found.kappa == pytest.approx(1 / 3)
    assert (found.flipped, found.contested, found.dissenters) == (2, 2, [2, 2, 0])
    assert (found.runs, found.examples, found.reason, found.kappa_reason) == (3, 4, None, None)


def test_the_worked_example_of_fleiss_kappa():
    found = agreement(by_votes(WIKIPEDIA))
    assert found.kappa == pytest.approx(0.210, abs=5e-4)
    assert 1 - found.disagreement == pytest.approx(0.378, abs=5e-4)
    assert found.flipped == 9 and found.dissenters[0] == 1


@given(tables)
def test_kappa_agrees_with_statsmodels_and_churn_with_all_pairs(table):
    assume(table.min() < table.max())
    found = agreement(table)
    assert found.kappa == pytest.approx(fleiss_kappa(counts(table)), abs=1e-12)
    assert churn(table) == pytest.approx(pairs(table))
    assert found.disagreement == pytest.approx(pairs(table).mean())
    assert found.flipped == np.count_nonzero(np.ptp(table, axis=0))
    assert sum(found.dissenters) == table.shape[1]


@given(tables, st.permutations(range(4)), st.randoms())
def test_names_of_categories_and_the_order_of_seeds_and_examples_do_not_matter(table, names, random):
    seeds = random.sample(range(len(table)), len(table))
    examples = random.sample(range(table.shape[1]), table.shape[1])
    found, other = agreement(table), agreement(np.array(names)[table][seeds][:, examples])
    for name in ("disagreement", "disagreement_ci", "kappa", "kappa_ci", "flipped_ci"):
        expected = getattr(found, name)
        assert getattr(other, name) == (None if expected is None else pytest.approx(expected, abs=1e-9))
    assert (other.flipped, other.dissenters) == (found.flipped, found.dissenters)


def test_kappa_is_none_and_not_1_where_every_prediction_is_the_same():
    found = agreement(np.zeros((5, 20), dtype=int))
    assert found.kappa is None and found.kappa_ci is None and "0 / 0" in found.kappa_reason
    assert found.disagreement == 0 and found.disagreement_ci is None and "not certainty" in found.reason


def test_complete_agreement_on_two_categories_is_1():
    found = agreement([[0, 1, 1, 0]] * 3)
    assert found.kappa == pytest.approx(1) and found.flipped == 0


def test_a_kappa_that_hangs_on_one_example_has_no_interval():
    found = agreement([[0, 0, 0, 1]] * 3)
    assert found.kappa == pytest.approx(1) and found.kappa_ci is None and "all but one example" in found.kappa_reason


def test_an_sd_of_zero_may_hide_flips():
    found = agreement([[0, 1], [1, 0]], references=[0, 0])  # each seed has one of two right
    assert (found.disagreement, found.flipped, found.contested) == (1, 2, 2)


@pytest.mark.parametrize("codes", [np.zeros((1, 4), int), np.zeros((0, 4), int), np.zeros((3, 0), int)])
def test_too_few_runs_or_examples_give_none_with_a_reason(codes):
    found = agreement(codes)
    assert found.disagreement is found.kappa is found.kappa_ci is None and found.reason


def test_one_example_has_no_interval():
    found = agreement([[0], [1]])
    assert found.disagreement == 1 and found.disagreement_ci is None and "one example" in found.reason


def test_its_intervals_leave_out_examples_one_by_one():
    table = np.random.default_rng(0).integers(3, size=(4, 30))
    found = agreement(table)
    left_out = [fleiss_kappa(counts(np.delete(table, example, axis=1))) for example in range(30)]
    half = 2.045230 * 29 * np.std(left_out, ddof=1) / 30**0.5  # t(0.975, 29) from a printed table
    assert found.kappa_ci == pytest.approx((found.kappa - half, found.kappa + half), abs=1e-6)


def test_examples_that_stand_in_clusters_are_left_out_together():
    table = np.random.default_rng(0).integers(3, size=(4, 30))
    clusters = np.repeat([f"text {number}" for number in range(10)], 3)
    found = agreement(table, clusters=clusters)
    kept = [np.flatnonzero(clusters != name) for name in np.unique(clusters)]
    left_out = [fleiss_kappa(counts(table[:, rows])) for rows in kept]
    half = 2.262157 * 9 * np.std(left_out, ddof=1) / 10**0.5
    assert found.kappa_ci == pytest.approx((found.kappa - half, found.kappa + half), abs=1e-6)
    assert found.kappa == agreement(table).kappa and "cluster" in found.method


def test_copies_of_examples_in_one_cluster_add_nothing():
    table = np.random.default_rng(0).integers(2, size=(3, 40))
    alone, copied = agreement(table), agreement(np.repeat(table, 5, axis=1), clusters=np.repeat(np.arange(40), 5))
    for name in ("disagreement_ci", "kappa_ci", "flipped_ci"):
        assert getattr(copied, name) == pytest.approx(getattr(alone, name))
    naive = agreement(np.repeat(table, 5, axis=1)).kappa_ci
    assert naive[1] - naive[0] < 0.6 * (alone.kappa_ci[1] - alone.kappa_ci[0])


def test_intervals_hold_what_they_promise():
    """Of 200 examples a fifth are hard, on which each of five seeds guesses among three labels with chance 0.4."""
    rng = np.random.default_rng(0)

    def draw(examples):
        usual, hard = rng.integers(3, size=examples), rng.random(examples) < 0.2
        guess = hard & (rng.random((5, examples)) < 0.4)
        return np.where(guess, rng.integers(3, size=(5, examples)), usual)

    truth = agreement(draw(300_000))
    hits = np.zeros(3)
    for _ in range(400):
        found = agreement(draw(200))
        bounds = (found.disagreement_ci, found.kappa_ci, found.flipped_ci)
        values = (truth.disagreement, truth.kappa, truth.flipped / truth.examples)
        hits += [low <= value <= high for (low, high), value in zip(bounds, values, strict=True)]
    assert (np.abs(hits / 400 - 0.95) < 0.03).all(), hits / 400


def test_texts_have_the_same_number_in_every_row():
    rows = codes_of([["tech", "sport"], ["sport", "sport", "Sport"]])
    assert [row.tolist() for row in rows] == [[0, 1], [1, 1, 2]]
    assert codes_of([]) == [] and codes_of([[]])[0].shape == (0,)


def test_twenty_runs_of_ten_thousand_examples_take_no_time():
    table = np.random.default_rng(0).integers(5, size=(20, 10_000))
    agreement(table)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        agreement(table, table[0])
        took.append(time.perf_counter() - start)
    assert min(took) < 0.1


@pytest.mark.parametrize("codes", [[0, 1], [[0.5, 1.0]], [[-1, 0], [0, 0]]])
def test_other_things_than_codes_are_refused(codes):
    with pytest.raises(AssertionError, match="runs, examples"):
        agreement(codes)
