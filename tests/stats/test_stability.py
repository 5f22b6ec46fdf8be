"""The stability rule, case by case."""

import pytest

from finetune.stats import STABILITY_RULE, stability


@pytest.mark.parametrize(
    ("failed", "n", "interval", "verdict"),
    [
        (1, 5, (0.001, 0.004), "unstable"),
        (0, 5, (0.001, 0.004), "undecided"),
        (0, 9, (0.02, 0.05), "undecided"),
        (0, 10, (0.02, 0.05), "unstable"),
        (0, 10, (0.001, 0.009), "stable"),
        (0, 10, (0.005, 0.02), "undecided"),
        (0, 10, (0.01, 0.02), "undecided"),
        (0, 10, None, "undecided"),
    ],
)
def test_rule(failed, n, interval, verdict):
    assert stability(failed, n, interval).verdict == verdict


def test_a_score_without_a_point_is_never_called_stable():
    assert stability(0, 20, (0.0, 0.001), point=None).verdict == "undecided"


def test_the_reason_names_the_failures():
    assert stability(2, 5, None).reason == "2 of 5 runs failed"
    assert "smoke test" in STABILITY_RULE
