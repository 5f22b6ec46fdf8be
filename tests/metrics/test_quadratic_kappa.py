"""Cohen's kappa with quadratic weights."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from finetune.metrics import find
from tests.metrics.columns import columns

LABELS = ("low", "medium", "high", "highest")


def table(said, wanted):
    return columns(list(zip(said, wanted, strict=True))) | {"labels": LABELS}


def test_by_hand():
    # Observed 0 + 4 + 0 + 1, expected over all pairs 28 / 4.
    found = table(["low", "high", "high", "medium"], ["low", "low", "high", "high"])
    said, wanted = np.array([0, 2, 2, 1]), np.array([0, 0, 2, 2])
    expected = ((said[:, None] - wanted) ** 2).sum() / 4
    assert find("quadratic_kappa").value(found) == pytest.approx(1 - 5 / expected)


def test_it_is_that_of_the_library():
    random = np.random.default_rng(0)
    said, wanted = random.choice(LABELS, 60).tolist(), random.choice(LABELS, 60).tolist()
    library = cohen_kappa_score(said, wanted, labels=LABELS, weights="quadratic")
    assert find("quadratic_kappa").value(table(said, wanted)) == pytest.approx(library)


def test_one_label_everywhere_is_nothing_to_agree_on():
    assert find("quadratic_kappa").value(table(["low"] * 3, ["low"] * 3)) == 0
    assert find("quadratic_kappa").contributions(table(["low"] * 3, ["low"] * 3)).tolist() == [0, 0, 0]
