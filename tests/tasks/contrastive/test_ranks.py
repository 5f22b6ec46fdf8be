"""Ranks in a whole set, with ties that help nobody."""

import numpy as np
import pytest

from finetune.tasks.contrastive import ranks as module
from finetune.tasks.contrastive.ranks import ranks


def similar(matrix):
    return lambda some: np.asarray(matrix, dtype=float)[some]


def test_a_pairs_rank_is_its_place_among_all_second_texts():
    matrix = [[0.9, 0.1, 0.2], [0.8, 0.5, 0.6], [0.1, 0.9, 0.3]]
    assert ranks(similar(matrix), np.arange(3.0), itself=True).tolist() == [1, 3, 2]
    assert ranks(similar(matrix), np.array([0.0, 1, 1]), itself=True).tolist() == [1, 2, 1], "equal texts are all right"


def test_of_labels_the_nearest_other_text_counts():
    matrix = [[1.0, 0.7, 0.8], [0.7, 1.0, 0.2], [0.8, 0.2, 1.0]]
    found = ranks(similar(matrix), np.array([0.0, 0, 1]), itself=False)
    assert found.tolist() == [2, 1, 3], "where nothing is right it is the last"


@pytest.mark.parametrize("itself", [True, False])
def test_one_vector_for_all_texts_is_never_right(itself):
    found = ranks(similar(np.ones((6, 6))), np.array([0.0, 0, 1, 1, 2, 2]), itself)
    assert found.tolist() == [5] * 6


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    matrix, codes = rng.normal(size=(31, 31)), rng.integers(0, 6, 31).astype(float)
    wanted = ranks(similar(matrix), codes, itself=False)
    monkeypatch.setattr(module, "BLOCK", 4)
    assert (ranks(similar(matrix), codes, itself=False) == wanted).all()
