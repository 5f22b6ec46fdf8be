"""Does a variant train reliably? One definition, which admits when the seeds are too few to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune.core.numbers import share
from finetune.stats.failures import FailureRate

MOST = 0.15
"""The failure rate above which training is not called stable."""

STABILITY_RULE = (
    "Stable: the runs speak against more than 15 % failing (the one-sided 95 % limit, which 0 of 20 reach). Unstable: "
    "they speak against fewer than 15 %. Undecided otherwise: five seeds are a smoke test, ten a report, twenty a "
    "claim about stability."
)


@dataclass(frozen=True)
class Stability:
    """The rule's answer, and what decided it."""

    verdict: Literal["stable", "unstable", "undecided"]
    reason: str


def stability(failures: FailureRate) -> Stability:
    """Apply :data:`STABILITY_RULE` to the failures among the ended runs."""
    if failures.limit is None or failures.least is None:
        return Stability("undecided", "no run has ended")
    told = f"{failures.count} of {failures.n} runs failed"
    if failures.limit <= MOST:
        return Stability("stable", f"{told}; up to {share(failures.limit, 1)} could")
    if failures.least > MOST:
        return Stability("unstable", f"{told}; at least {share(failures.least, 1)} do")
    return Stability("undecided", f"{told}; up to {share(failures.limit, 1)} could, and 15 % is what may be")
