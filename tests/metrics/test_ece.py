"""The expected calibration error."""

import numpy as np
import pytest

from finetune.metrics import find
from finetune.stats.calibration import calibration


def of(probabilities, reference, labels=("a", "b")):
    return {"probabilities": np.array(probabilities, np.float32), "reference": reference, "labels": labels}


def test_by_hand():
    # Two examples in the bin of 0.75, one of them right: a gap of 0.25; one in that of 0.5625, right: of 0.4375.
    columns = of([[0.75, 0.25], [0.25, 0.75], [0.5625, 0.4375]], ["a", "a", "a"])
    assert find("ece").value(columns) == pytest.approx((2 * 0.25 + 0.4375) / 3)
    assert find("ece").contributions(columns).tolist() == [-0.25, 0.75, 0.4375]


def test_it_is_that_of_the_report():
    random = np.random.default_rng(1)
    probabilities = random.dirichlet(np.ones(3), 100).astype(np.float32)
    right = random.integers(3, size=100)
    reference = [("b", "a", "c")[place] for place in right]
    found = calibration(probabilities.astype(float), right, random)
    columns = of(probabilities, reference, ("b", "a", "c"))
    assert find("ece").value(columns) == found.ece
    assert find("brier").value(columns) == pytest.approx(found.brier)


def test_an_answer_that_is_no_label_is_never_right():
    assert find("ece").value(of([[0.75, 0.25]], ["c"])) == 0.75
