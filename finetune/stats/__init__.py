"""Estimates, spread, stability and comparisons over seeds: pure functions on NumPy arrays, no files, no torch."""

from finetune.stats.comparisons import Comparison, VariantScores, compare, holm, verdict
from finetune.stats.dispersion import spread_verdict
from finetune.stats.estimates import (
    Estimate,
    FailureRate,
    Gain,
    estimate,
    expected_best,
    failure_rate,
    gain,
    sd_factors,
    sd_interval,
    t_interval,
)
from finetune.stats.sequence import sequential_estimate
from finetune.stats.spread import Spread, spread
from finetune.stats.stability import STABILITY_RULE, Stability, stability

__all__ = [
    "STABILITY_RULE",
    "Comparison",
    "Estimate",
    "FailureRate",
    "Gain",
    "Spread",
    "Stability",
    "VariantScores",
    "compare",
    "estimate",
    "expected_best",
    "failure_rate",
    "gain",
    "holm",
    "sd_factors",
    "sd_interval",
    "sequential_estimate",
    "spread",
    "spread_verdict",
    "stability",
    "t_interval",
    "verdict",
]
