"""Estimates, spread, stability and comparisons over seeds: pure functions on NumPy arrays, no files, no torch."""

from finetune.stats.choosing import expected_chosen
from finetune.stats.comparisons import Compared, Comparison, VariantScores, Verdict, difference_of
from finetune.stats.dispersion import spread_verdict
from finetune.stats.estimates import (
    SHARE,
    Estimate,
    Gain,
    estimate,
    expected_best,
    expected_best_intervals,
    gain,
    interval_of_mean,
    sd_factors,
    sd_interval,
    t_interval,
)
from finetune.stats.failures import (
    Expected,
    FailureRate,
    at_chance,
    expected,
    failure_rate,
    holds_in_all,
    no_better,
    told_apart,
)
from finetune.stats.families import Family
from finetune.stats.judging import compare, family_of, holm, judge, verdict
from finetune.stats.overlap import fixed_test_overlap, own_test_overlap
from finetune.stats.spread import Spread, spread
from finetune.stats.stability import STABILITY_RULE, Stability, stability

__all__ = [
    "SHARE",
    "STABILITY_RULE",
    "Compared",
    "Comparison",
    "Estimate",
    "Expected",
    "FailureRate",
    "Family",
    "Gain",
    "Spread",
    "Stability",
    "VariantScores",
    "Verdict",
    "at_chance",
    "compare",
    "difference_of",
    "estimate",
    "expected",
    "expected_best",
    "expected_best_intervals",
    "expected_chosen",
    "failure_rate",
    "family_of",
    "fixed_test_overlap",
    "gain",
    "holds_in_all",
    "holm",
    "interval_of_mean",
    "judge",
    "no_better",
    "own_test_overlap",
    "sd_factors",
    "sd_interval",
    "spread",
    "spread_verdict",
    "stability",
    "t_interval",
    "told_apart",
    "verdict",
]
