"""Rows that are drawn with another: which, how many, and by the seed alone."""

import numpy as np
import pytest

from finetune.core.examples import PART
from finetune.tasks.contrastive.drawing import Rows, joined


def rows(values):
    texts = [[{"input_ids": np.array([row, 100 + row], np.int32)}] for row in range(len(values))]
    return Rows(texts, np.array(values, dtype=float))


@pytest.mark.parametrize("which", ["any", "unlike", "balanced"])
def test_no_row_is_drawn_twice_nor_with_itself_and_the_seed_decides(which):
    found = rows([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    for row in range(10):
        drawn = [tuple(found.others(row, 5, which, seed)) for seed in range(20)]
        assert all(len(set(own)) == 5 and row not in own for own in drawn)
        assert drawn == [tuple(found.others(row, 5, which, seed)) for seed in range(20)] and len(set(drawn)) > 5


def test_what_means_the_same_is_no_negative_and_of_labels_half_are_alike():
    found = rows([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    for seed in range(20):
        assert all(found.values[other] != 0 for other in found.others(1, 6, "unlike", seed))
        alike = [found.values[other] == 0 for other in found.others(1, 5, "balanced", seed)]
        assert alike == [True, True, False, False, False]


def test_every_other_row_is_drawn_about_as_often():
    counts = np.bincount([other for seed in range(2000) for other in rows(range(6)).others(2, 2, "any", seed)])
    assert counts[2] == 0 and np.abs(counts[[0, 1, 3, 4, 5]] / 800 - 1).max() < 0.15


def test_where_there_are_too_few_all_are_taken():
    found = rows([0, 0, 0, 1])
    assert found.others(3, 9, "balanced", 0) and set(found.others(3, 9, "balanced", 0)) == {0, 1, 2}
    assert sorted(found.others(0, 9, "any", 0)) == [1, 2, 3] and found.others(0, 4, "unlike", 0) == [3]
    assert rows([5]).others(0, 3, "any", 0) == []
    many = rows([0] * 5000 + [1])
    assert many.others(0, 3, "unlike", 0) == [5000], "the only one, which is hardly ever found blindly"


def test_texts_of_an_example_follow_each_other():
    texts = [{"input_ids": np.array(ids, np.int32)} for ids in ([1, 2], [3], [4, 5, 6])]
    found = joined(texts)
    assert found["input_ids"].tolist() == [1, 2, 3, 4, 5, 6] and found[PART].tolist() == [0, 0, 1, 2, 2, 2]
    inputs, values = rows([3, 4, 5]).together([2, 0])
    assert inputs["input_ids"].tolist() == [2, 102, 0, 100] and values == (5.0, 3.0)
