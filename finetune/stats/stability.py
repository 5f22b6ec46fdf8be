"""Does a variant train reliably? A simple rule that admits when the seeds are too few to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune.stats.estimates import Interval

ENOUGH_SEEDS = 10

STABILITY_RULE = (
    "Unstable: a run failed, or at least ten seeds show an SD (corrected for test-set noise where possible) whose 95 % "
    "interval lies above one point. Stable: at least ten seeds, none failed, and that interval lies below one point. "
    "Undecided otherwise: five seeds are a smoke test, ten a report, twenty a claim about stability."
)


@dataclass(frozen=True)
class Stability:
    """The rule's answer, and what decided it."""

    verdict: Literal["stable", "unstable", "undecided"]
    reason: str


def stability(failed: int, n: int, sd_interval: Interval | None, point: float | None = 0.01) -> Stability:
    """Apply :data:`STABILITY_RULE` to ``n`` ended runs of which ``failed`` failed.

    ``sd_interval`` is the 95 % interval of the score's SD over seeds, and ``point`` one point, both in the score's
    unit. ``point`` is None for a score without a natural point, such as a loss: then only failures can decide.
    """
    if failed:
        return Stability("unstable", f"{failed} of {n} runs failed")
    if n < ENOUGH_SEEDS:
        return Stability("undecided", f"{n} of the {ENOUGH_SEEDS} seeds that this claim needs have ended")
    if point is None or sd_interval is None:
        return Stability("undecided", "the headline metric has no SD that could be held against one point")
    low, high = sd_interval
    if low > point:
        return Stability("unstable", "the SD's 95 % interval lies above one point")
    if high < point:
        return Stability("stable", "no run failed, and the SD's 95 % interval lies below one point")
    return Stability("undecided", "the SD's 95 % interval contains one point")
