"""Matthews correlation."""

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from tests.metrics.columns import BINARY, contributions, value


def test_by_hand():
    # (tp tn - fp fn) / sqrt(...) = (2*1 - 1*1) / sqrt(3 * 3 * 2 * 2)
    assert value("mcc", BINARY) == pytest.approx(1 / 6)


@pytest.mark.parametrize("pairs", [[("a", "a"), ("a", "b")], [("a", "b"), ("b", "b")], [("a", "a")]])
def test_that_of_one_label_is_zero_without_a_warning(pairs, recwarn):
    assert value("mcc", pairs) == 0.0
    assert not recwarn.list


def test_it_is_that_of_the_library():
    random = np.random.default_rng(0)
    said, true = random.choice(["a", "b", "c"], 60).tolist(), random.choice(["a", "b", "c"], 60).tolist()
    assert value("mcc", list(zip(said, true, strict=True))) == pytest.approx(matthews_corrcoef(true, said))


def test_one_that_is_undefined_is_zero_everywhere():
    assert contributions("mcc", [("a", "a"), ("a", "b"), ("a", "a")]).tolist() == [0.0, 0.0, 0.0]
