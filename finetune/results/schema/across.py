"""All evaluation sets taken together."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune.stats.across import Order, Value


@dataclass(frozen=True)
class SetMetric:
    """An evaluation set, and its headline metric."""

    task: str
    """Name of the evaluation set."""
    metric: str
    """Its headline metric."""


@dataclass(frozen=True)
class LeftOut(SetMetric):
    """An evaluation set that is not taken together with the others, and why."""

    reason: str
    """In words."""


@dataclass(frozen=True)
class ProfileResult:
    """Share of all runs and sets with a higher score than each of `taus`; bounds point by point."""

    share: list[float]
    """One for each of `taus`."""
    low: list[float] | None
    """Null where there are too few runs."""
    high: list[float] | None
    """Null where there are too few runs."""


@dataclass(frozen=True)
class AcrossVariant:
    """A variant's summary over all evaluation sets."""

    name: str
    """As the recipe calls it."""
    runs: int
    """That have a score on every set."""
    runs_left_out: int
    """That lack a score on one of the sets."""
    reason: str | None
    """Why there is nothing."""
    iqm: Value | None = None
    """Interquartile mean (Agarwal et al., NeurIPS 2021)."""
    median: Value | None = None
    """Of the sets' means over runs."""
    mean: Value | None = None
    """Over all runs and sets."""
    optimality_gap: Value | None = None
    """How far scores lie below `gamma` on average."""
    profile: ProfileResult | None = None
    """Performance profile."""


@dataclass(frozen=True)
class Orders:
    """Almost stochastic order (Dror et al., ACL 2019), by evaluation set, both ways."""

    left: dict[str, Order]
    """Whether the left almost dominates the right."""
    right: dict[str, Order]
    """Whether the right almost dominates the left."""


@dataclass(frozen=True)
class AcrossPair:
    """Two variants held together over all evaluation sets."""

    left: str
    """Name of a variant."""
    right: str
    """Name of a variant."""
    probability_of_improvement: Value
    """Chance that a random run of the left beats one of the right, mean over sets."""
    order_alpha: float
    """Level of each epsilon_min, so that all hold together."""
    order: Orders
    """Both ways."""


@dataclass(frozen=True)
class AcrossResult:
    """All evaluation sets whose headline metrics have one scale, taken together."""

    tasks: list[SetMetric]
    """Those that are taken together."""
    left_out: list[LeftOut]
    """Those whose headline metric has another scale."""
    gamma: float
    """Score that counts as reaching the goal."""
    order_tau: float
    """epsilon_min below which a variant almost dominates."""
    level: float
    """Of every interval here."""
    method: str
    """How intervals were computed."""
    reason: str | None
    """Why nothing was computed."""
    taus: list[float] = field(default_factory=list)
    """Scores at which performance profiles are drawn."""
    variants: list[AcrossVariant] = field(default_factory=list)
    """In the order of the recipe."""
    pairs: list[AcrossPair] = field(default_factory=list)
    """Every two tuned variants."""
