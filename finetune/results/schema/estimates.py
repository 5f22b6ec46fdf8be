"""A variant's estimates on one evaluation set, and two variants compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from finetune.stats import Comparison, Estimate, Expected, Gain
from finetune.stats.agreement import Agreement
from finetune.stats.comparisons import Verdict
from finetune.stats.dispersion import SpreadVerdict


@dataclass(frozen=True)
class ScoreEstimate(Estimate):
    """A score over those seeds of a variant that work, with what its spread is made of, and what it gives in all."""

    expected: Expected | None = None
    """Over all runs, those that fail among them; null where no seed changes the model."""
    sd_floor: float | None = None
    """SD that an evaluation set of this size causes alone, were all seeds equally good (Jordan, ICLR 2024)."""
    sd_corrected: float | None = None
    """SD that would remain on endless examples."""
    sd_corrected_ci: tuple[float, float] | None = None
    """Of `sd_corrected`."""
    sd_corrected_clipped: bool = False
    """Whether its estimate fell below zero by chance and is given as zero."""
    without_leaks: float | None = None
    """The mean on those examples that were not learnt from; null where none were, or it is not known which."""
    expected_best: list[float] = field(default_factory=list)
    """Expected best of 1, 2, … seeds (Dodge et al., EMNLP 2019)."""
    expected_best_ci: list[tuple[float, float]] = field(default_factory=list)
    """Of each of those, over new seeds; empty where the score has no bounds."""


@dataclass(frozen=True)
class Divided:
    """An example on which seeds differ."""

    example: int
    """Its row number in the evaluation set."""
    churn: float
    """Share of pairs of seeds that predict differently."""


@dataclass(frozen=True)
class AgreementResult(Agreement):
    """The agreement of a variant's seeds on an evaluation set: whether they predict the same."""

    most_divided: list[Divided] = field(default_factory=list)
    """The examples with the highest churn, at most five."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Confidence against accuracy in one bin, over the seeds that have enough examples there."""

    low: float
    """Lowest confidence in the bin."""
    high: float
    """Highest confidence in the bin."""
    share: float
    """Of all examples."""
    seeds: int
    """Seeds with enough examples in the bin; what follows is over them."""
    confidence: float | None
    """Mean of the largest probability."""
    accuracy: float | None
    """Share that is right."""
    range: tuple[float, float] | None
    """Lowest and highest accuracy of a seed."""


@dataclass(frozen=True)
class CalibrationResult:
    """The calibration of a variant: whether it is right as often as it believes, each measure over seeds."""

    bins: int
    """How many bins an ECE has."""
    left_out: int
    """Runs whose probabilities were not finite."""
    nll: Estimate
    """Mean negative log-likelihood of the right label, nats."""
    brier: Estimate
    """Brier score, 0 to 2 (Brier 1950)."""
    ece: Estimate
    """Expected calibration error, bins of equal width (Guo et al. 2017)."""
    ece_noise: Estimate
    """What a perfectly calibrated model with these confidences would show on average."""
    ece_equal_mass: Estimate
    """The same with equally many examples in each bin (Nixon et al. 2019)."""
    ece_equal_mass_noise: Estimate
    """What chance alone gives it, as `ece_noise`."""
    temperature: Estimate
    """By which logits had to be divided; above 1: overconfident."""
    nll_scaled: Estimate
    """`nll` after temperature scaling, cross-fitted on halves."""
    reliability: list[ReliabilityBin]
    """Accuracy by confidence, bin by bin."""


@dataclass(frozen=True)
class GainResult(Gain):
    """The gain of a combination over the mean of the seeds it could be made of; positive is better."""

    mean_seed: float = 0.0
    """Mean score of those seeds."""


@dataclass(frozen=True)
class CombinedResult:
    """A combination of a variant's seeds: a soup or an ensemble."""

    kind: str
    """`soup-uniform`, `soup-greedy` or `ensemble`."""
    status: str
    """As of a run."""
    reason: str | None
    """Why it failed."""
    seeds: list[int]
    """Those it is made of."""
    of: list[int]
    """Those it could be made of."""
    seconds: float | None
    """What it took to make and score it."""
    scores: dict[str, float]
    """By "set/metric"."""
    gain: dict[str, GainResult]
    """By "set/metric"."""


@dataclass(frozen=True)
class ForgettingResult:
    """Whether a variant has lost what the untuned model can do: a test for not being worse by more than a margin."""

    variant: str
    """Its name."""
    task: str
    """Name of the evaluation set."""
    metric: str
    """Its headline metric."""
    change: float | None
    """Mean score less that of the untuned model, turned so that a loss is negative; null where one of the two has
    none."""
    ci: tuple[float, float] | None
    """Of the change, over new seeds and new examples; simultaneous for all that are held against what needs no tuning
    on this set."""
    margin: float
    """What may be lost at most."""
    verdict: Literal["kept", "lost", "undecided"]
    """`kept`: the interval lies above -margin; `lost`: below it."""
    reason: str | None = None
    """Why there is no interval."""


@dataclass(frozen=True)
class PairResult(Comparison):
    """Two variants held together on one evaluation set and metric: an entry of `comparisons`, left minus right."""

    task: str = ""
    """Name of the evaluation set."""
    metric: str = ""
    """Name of the metric."""
    left: str = ""
    """Name of a variant."""
    right: str = ""
    """Name of a variant, of a cheap baseline, or `base`."""
    higher_is_better: bool = True
    """Of the metric."""
    family: Literal["headline", "other"] = "headline"
    """Whether the metric is the set's headline; the others are exploratory."""
    verdict: Verdict = "undecided"
    """Of the left, between runs that work."""
    verdict_overall: Verdict = "undecided"
    """Of the left, over all runs: the same where even as many failures as these runs allow could not turn it round."""
    p_failures: float | None = None
    """Two-sided, of "both fail equally often" (Boschloo)."""
    p_spread_adjusted: float | None = None
    """`p_spread` after Holm's correction over all that are judged together."""
    spread_verdict: SpreadVerdict = "undecided"
    """Of the left: whose seeds scatter more."""
