"""What was got wrong: confusions and hardest examples, from prediction stores whose answers are known."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from finetune.results.mistakes import answers_of, confusion, hardest
from tests.results.stores import PETS, answer, read


def column(texts):
    return pa.array(texts).dictionary_encode()


def counted(*runs, labels=PETS, clusters=None):
    """The confusion of runs, each a list of (true, predicted)."""
    return confusion("full", labels, [tuple(map(column, zip(*run, strict=True))) for run in runs], clusters)


def answers(made):
    study, results = read(made)
    return answers_of(study, results, results.tasks[0])


def test_counts_are_means_over_runs():
    found = counted(
        [("cat", "cat"), ("dog", "cat"), ("fish", "fish")], [("cat", "dog"), ("dog", "cat"), ("fish", "fish")]
    )
    assert found.counts.tolist() == [[0.5, 0.5, 0], [1, 0, 0], [0, 0, 1]]
    assert found.support.tolist() == [1, 1, 1] and found.shares[1].tolist() == [1, 0, 0]


@given(st.lists(st.tuples(st.sampled_from(PETS), st.sampled_from(PETS)), min_size=1), st.permutations(PETS))
def test_every_example_is_counted_once_whatever_the_labels_order(pairs, order):
    found, other = counted(pairs), counted(pairs, labels=tuple(order))
    assert found.counts.sum() == len(pairs)
    places = [order.index(label) for label in PETS]
    assert (other.counts[np.ix_(places, places)] == found.counts).all()
    assert np.isclose(found.shares.sum(axis=1), found.support > 0).all()


def test_a_label_without_examples_has_no_share():
    assert counted([("cat", "cat"), ("dog", "cat")]).shares[2].tolist() == [0, 0, 0]


def test_the_best_variant_stands_first(pets):
    assert [each.variant for each in answers(pets)] == ["full", "lora"]
    answer(pets, "full", 1, [("dog", true) for true in ("cat", "dog", "dog", "fish", "cat")])
    assert [each.variant for each in answers(pets)] == ["lora", "full"]


def test_answers_know_their_labels_scores_and_confusion(pets):
    full = answers(pets)[0]
    assert full.labels == PETS and full.score.tolist() == [1, 1, 1, 0, 0.5]
    assert full.said(4) == ["cat", "dog"]
    assert full.confusion.counts.tolist() == [[1.5, 0.5, 0], [0, 2, 0], [1, 0, 0]]


def test_half_of_the_runs_or_of_the_variants_are_not_most():
    means = np.array([[1.0, 0.5, 0.0, 0.0], [1.0, 0.0, 0.4, 0.5]])
    assert hardest(means, right_or_wrong=True).tolist() == [2]
    assert hardest(means, right_or_wrong=False).tolist() == [2, 1, 3, 0]


def test_the_list_is_short_and_ties_stand_in_order():
    assert hardest(np.zeros((2, 100)), right_or_wrong=True).tolist() == list(range(20))


def test_runs_of_other_rows_are_left_out(pets):
    answer(pets, "lora", 2, [("dog", "fish")] * 4)
    assert {each.variant: len(each.stored) for each in answers(pets)} == {"full": 2, "lora": 1}


def test_a_run_whose_scores_are_no_numbers_is_left_out(pets):
    answer(pets, "full", 1, [("cat", "cat")] * 5, scores=[np.nan] * 5)
    assert {each.variant: len(each.stored) for each in answers(pets)} == {"full": 1, "lora": 2}


def test_nothing_stored_is_nothing_answered(fabricator):
    made = fabricator([1], {"full": "full"})
    made.run("full", 1, None, "error", "out of memory")
    assert answers(made) == []


def test_examples_that_belong_together_count_once_in_a_share():
    """Ten texts of four questions each, all four right or all four wrong: as sure as ten answers, and not as forty."""
    answers = [("cat", "cat")] * 20 + [("cat", "dog")] * 20
    alone, together = counted(answers), counted(answers, clusters=np.repeat(np.arange(10), 4))
    widths = [high - low for low, high in (found.interval(0, 0) for found in (alone, together))]
    assert widths[1] > 1.5 * widths[0]
