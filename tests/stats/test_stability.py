"""The stability rule, case by case: the one-sided limit of the failure rate is at most 15 %."""

import re

import pytest

from finetune.stats import STABILITY_RULE, failure_rate, stability


@pytest.mark.parametrize(
    ("failed", "n", "verdict"),
    [
        (0, 0, "undecided"),
        (0, 5, "undecided"),
        (0, 10, "undecided"),
        (0, 18, "undecided"),
        (0, 19, "stable"),
        (0, 20, "stable"),
        (1, 20, "undecided"),
        (1, 29, "undecided"),
        (1, 30, "stable"),
        (1, 5, "undecided"),
        (2, 5, "undecided"),
        (3, 5, "unstable"),
        (5, 5, "unstable"),
        (6, 20, "undecided"),
        (7, 20, "unstable"),
    ],
)
def test_rule(failed, n, verdict):
    """0.85^19 = 0.0456: nineteen runs without a failure speak against 15 %, eighteen do not."""
    assert stability(failure_rate(failed, n)).verdict == verdict


def reason(failed, n):
    return re.sub(r"\s", " ", stability(failure_rate(failed, n)).reason)  # some spaces do not break


def test_the_reason_names_the_failures_and_how_many_there_could_be():
    assert reason(0, 5) == "0 of 5 runs failed; up to 45 % could, and 15 % is what may be"
    assert reason(0, 20) == "0 of 20 runs failed; up to 14 % could"
    assert "at least 34 % do" in reason(4, 5)
    assert reason(0, 0) == "no run has ended"
    assert "smoke test" in STABILITY_RULE
