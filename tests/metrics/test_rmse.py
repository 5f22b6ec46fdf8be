"""Root mean squared error."""

import numpy as np
import pytest
from sklearn.metrics import root_mean_squared_error

from finetune.metrics import unit
from tests.metrics.columns import contributions, value
from tests.metrics.test_pearson import pairs


def test_by_hand():
    assert value("rmse", [("1", "1"), ("2", "5"), ("0", "-1")]) == pytest.approx((10 / 3) ** 0.5)
    assert contributions("rmse", [("2", "2"), ("3", "3.0")]).tolist() == [0.0, 0.0]


def test_it_is_that_of_the_library():
    said, wanted = np.random.default_rng(0).normal(3, 40, size=(2, 60))
    assert value("rmse", pairs(said, wanted)) == pytest.approx(root_mean_squared_error(wanted, said))


@pytest.mark.parametrize(
    ("number", "written"),
    [(0.71234, "0.712"), (2.5, "2.50"), (31.26, "31.3"), (123456.7, "123,457"), (1.234e-4, "0.000123"), (0.0, "0.000")],
)  # fmt: skip
def test_it_has_three_digits_whatever_the_unit(number, written):
    assert unit("rmse").value(number) == written
