"""How a metric's values are written."""

import pytest

from finetune.core.numbers import THIN
from finetune.metrics import unit
from finetune.metrics.unit import Unit, percent


@pytest.mark.parametrize(
    ("metric", "value", "written"),
    [("accuracy", 0.9312, "93.1 %"), ("mcc", -0.5, "\u22120.500"), ("nll", 0.1234, "0.123"), ("chrf", 43.21, "43.2"),
     ("rouge_l", 0.5, "50.0 %"), ("hub:own", 1.0, "1.000"), ("accuracy", None, "\u2013")],
)  # fmt: skip
def test_values(metric, value, written):
    assert unit(metric).value(value).replace(THIN, " ") == written


def test_a_metric_of_others_is_shown_as_it_is():
    assert unit("hub:wer") == Unit("hub:wer") and unit("hub:wer").point is None


def test_differences_and_intervals():
    share = unit("accuracy")
    assert share.gap(0.012).replace(THIN, " ") == "+1.2 points" and share.gap(None) == "\u2013"
    assert share.interval((0.5, 0.75)) == "[50.0, 75.0]" and share.interval(None) == "\u2013"
    assert share.heading == "accuracy, %" and unit("nll").heading == "NLL"


def test_an_end_that_is_rounded_to_zero_stays_on_its_side():
    """Else a difference whose interval holds zero reads "[+0.0, +5.4]" beside a p-value above 0.05."""
    accuracy = percent("accuracy")
    assert accuracy.interval((-0.0003, 0.054), signed=True) == "[\N{MINUS SIGN}0.0, +5.4]"
    assert accuracy.interval((0.0003, 0.054), signed=True) == "[+0.0, +5.4]"
    assert accuracy.interval((0.0, 0.054), signed=True) == "[+0.0, +5.4]"
