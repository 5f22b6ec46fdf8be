"""Accuracy."""

import numpy as np
import pytest

from finetune.metrics import find
from tests.metrics.columns import BINARY, contributions, value


def test_by_hand():
    assert value("accuracy", BINARY) == pytest.approx(3 / 5)
    assert contributions("accuracy", BINARY).tolist() == [1, 1, 0, 1, 0]


def test_texts_differ_by_every_character():
    assert value("accuracy", [("a\0", "a"), ("a ", "a"), ("A", "a"), ("a", "a")]) == 0.25


def test_numbers_for_texts_give_the_same():
    coded = {"prediction": np.array([0, 0, 1, 1, 0]), "reference": np.array([0, 0, 0, 1, 1])}
    assert find("accuracy").contributions(coded).tolist() == contributions("accuracy", BINARY).tolist()
