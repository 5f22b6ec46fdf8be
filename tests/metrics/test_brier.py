"""The Brier score."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from finetune.metrics import find


def of(probabilities, reference, labels=("a", "b")):
    return {"probabilities": np.array(probabilities, np.float32), "reference": reference, "labels": labels}


def test_by_hand():
    columns = of([[0.75, 0.25], [0.5, 0.5]], ["a", "b"])
    assert find("brier").value(columns) == (0.125 + 0.5) / 2
    assert find("brier").contributions(columns).tolist() == [0.125, 0.5]


@pytest.mark.parametrize("labels", [("no", "yes"), ("b", "a", "c", "10")])
def test_it_is_that_of_the_library(labels):
    random = np.random.default_rng(0)
    probabilities = random.multinomial(64, np.ones(len(labels)) / len(labels), 80) / 64  # exact in few bits
    reference = random.choice(labels, 80).tolist()
    order = np.argsort(labels)  # the library wants labels in the order of the alphabet
    names = np.array(labels)[order]
    wanted = brier_score_loss(reference, probabilities[:, order], labels=names, scale_by_half=False)
    assert find("brier").value(of(probabilities, reference, labels)) == pytest.approx(wanted)


def test_a_right_answer_that_is_no_label_has_no_probability():
    assert find("brier").value(of([[0.5, 0.5]], ["c"])) == pytest.approx(0.25 + 0.25 + 1)
