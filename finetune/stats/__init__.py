"""Estimates, spread, stability and comparisons over seeds: pure functions on NumPy arrays, no files, no torch."""

from finetune.stats.comparisons import Comparison, compare, compare_to_constant, holm, verdict
from finetune.stats.estimates import (
    Estimate,
    FailureRate,
    Gain,
    Spread,
    estimate,
    failure_rate,
    gain,
    sd_factors,
    spread,
    t_interval,
)
from finetune.stats.stability import STABILITY_RULE, Stability, stability

__all__ = [
    "STABILITY_RULE",
    "Comparison",
    "Estimate",
    "FailureRate",
    "Gain",
    "Spread",
    "Stability",
    "compare",
    "compare_to_constant",
    "estimate",
    "failure_rate",
    "gain",
    "holm",
    "sd_factors",
    "spread",
    "stability",
    "t_interval",
    "verdict",
]
