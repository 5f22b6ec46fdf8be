"""Mean absolute error."""

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error

from tests.metrics.columns import contributions, value
from tests.metrics.test_pearson import pairs


def test_by_hand():
    table = [("1", "1"), ("2", "5"), ("0", "-1")]
    assert value("mae", table) == pytest.approx(4 / 3) and contributions("mae", table).tolist() == [0.0, 3.0, 1.0]


def test_it_is_that_of_the_library():
    said, wanted = np.random.default_rng(0).normal(3, 40, size=(2, 60))
    assert value("mae", pairs(said, wanted)) == pytest.approx(mean_absolute_error(wanted, said))
