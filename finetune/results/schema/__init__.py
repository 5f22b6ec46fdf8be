"""The content of `results.json`, the machine interface: a frozen dataclass for each kind of entry, and one way to JSON.

Keys may be added. Taking one away, or giving it another meaning, is a new format (`FORMAT` in `core/run_dir.py`).
Intervals are `[low, high]`; what there is too little to say of is null, and a `reason` says why.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal

from pydantic import TypeAdapter

from finetune.core.run_dir import BASE
from finetune.results.schema.across import (
    AcrossPair,
    AcrossResult,
    AcrossVariant,
    LeftOut,
    Orders,
    ProfileResult,
    SetMetric,
)
from finetune.results.schema.estimates import (
    AgreementResult,
    CalibrationResult,
    CombinedResult,
    Divided,
    ForgettingResult,
    GainResult,
    PairResult,
    ReliabilityBin,
    ScoreEstimate,
)
from finetune.results.schema.runs import (
    ChoiceResult,
    Direction,
    EvaluationSet,
    ExportResult,
    Parameters,
    PoolingResult,
    RunResult,
    TrainingData,
    Worth,
)
from finetune.stats import FailureRate

__all__ = [
    "AcrossPair",
    "AcrossResult",
    "AcrossVariant",
    "AgreementResult",
    "CalibrationResult",
    "ChoiceResult",
    "CombinedResult",
    "Direction",
    "Divided",
    "EvaluationSet",
    "ExportResult",
    "ForgettingResult",
    "GainResult",
    "LeftOut",
    "Orders",
    "PairResult",
    "Parameters",
    "PoolingResult",
    "ProfileResult",
    "ReliabilityBin",
    "Results",
    "RunResult",
    "ScoreEstimate",
    "SetMetric",
    "TrainingData",
    "VariantResult",
    "Worth",
    "from_json",
    "to_json",
]


@dataclass(frozen=True)
class VariantResult:
    """A variant's runs, and what they amount to. The untuned base model is the variant `base`."""

    name: str
    """As the recipe calls it."""
    strategy: str
    """Type of its strategy; `none` for the base model."""
    parameters: Parameters | None
    """Null where no run has got so far."""
    new: list[str]
    """Parts of the model drawn afresh in each run."""
    pooling: PoolingResult | None
    """Null where the model pools, or nothing does."""
    runs: list[RunResult]
    """By seed."""
    combined: list[CombinedResult]
    """Soups and ensembles, where the recipe asks for them."""
    estimates: dict[str, ScoreEstimate]
    """By "set/metric"."""
    agreement: dict[str, AgreementResult]
    """By evaluation set."""
    calibration: dict[str, CalibrationResult]
    """By evaluation set."""
    failures: FailureRate
    """Of runs that have ended: degenerate, diverged and crashed ones."""
    stability: Literal["stable", "unstable", "undecided"]
    """Whether it trains the same way each time."""
    stability_reason: str
    """Why, in words."""
    learning_rate: float | None = None
    """Of its training; null where it is solved, or has no run yet."""
    chosen_by: str | None = None
    """How its settings were chosen, as the recipe says it; null: nobody says."""
    exports: list[ExportResult] = field(default_factory=list)
    """Models of it that were taken out of the study."""
    choice: ChoiceResult | None = None
    """Which seed is the best by validation, and what that is worth; null where fewer than two were validated."""

    @property
    def is_base(self) -> bool:
        """Tell whether it is the untuned base model."""
        return self.name == BASE


@dataclass(frozen=True)
class Results:
    """A study's results: the content of `report/results.json`."""

    format: int
    """Version of this layout."""
    study: str
    """The study's name."""
    digest: str
    """16 hex digits over every option that decides a score."""
    level: float
    """Of every interval."""
    seeds: list[int]
    """Those that were asked for, or added by the rule in `until`."""
    until: dict[str, Any] | None
    """The rule by which seeds were added, as the recipe has it; null where their number was fixed before."""
    vary: list[str]
    """Streams of randomness that change with the seed."""
    training: TrainingData | None
    """Null where the study does not say it."""
    crossed: bool
    """Whether the runs are a crossed design of `finetune diagnose` and no independent seeds."""
    baseline: str | None
    """The variant that all others are compared with; null: all pairs are compared."""
    environment: dict[str, Any]
    """What `environment.json` holds: versions, device, arithmetic."""
    tasks: list[EvaluationSet]
    """The evaluation sets."""
    variants: list[VariantResult]
    """In the order of the recipe; then the untuned base model, where it was scored."""
    baselines: list[VariantResult]
    """What needs no tuning, held against the variants where the recipe has it."""
    comparisons: list[PairResult]
    """Every pair of variants on every evaluation set and metric."""
    across: AcrossResult | None
    """Null with a single evaluation set."""
    forgetting: list[ForgettingResult] = field(default_factory=list)
    """Each variant on each evaluation set of role `forgetting`."""

    def to_json(self) -> dict[str, Any]:
        """Turn the results into plain values, with the keys of `results.json`."""
        return to_json(self)

    def variant(self, name: str) -> VariantResult:
        """The variant or cheap baseline called ``name``. Raises KeyError when there is none."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, VariantResult]:
        return {variant.name: variant for variant in (*self.variants, *self.baselines)}

    @property
    def tuned(self) -> list[VariantResult]:
        """All variants but the untuned base model."""
        return [variant for variant in self.variants if not variant.is_base]


def to_json(value: Any) -> Any:
    """Turn dataclasses, and what holds them, into plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_json(entry) for key, entry in value.items()}
    return [to_json(entry) for entry in value] if isinstance(value, list | tuple) else value


def from_json(content: dict[str, Any]) -> Results:
    """Read results from the content of `results.json`, of this format or the one before.

    Raises ValueError where it is neither. What format 1 did not say is null, and its intervals keep the meaning that
    `method` gives them: those of means were over seeds alone.
    """
    former = isinstance(content, dict) and content.get("format") == 1
    return _adapter().validate_python(_of_format_1(content) if former else content)


def _of_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a format 1 file under the keys of format 2."""
    renamed = {"detectable": "could_see"}
    pairs = [{renamed.get(key, key): value for key, value in pair.items()} for pair in content.get("comparisons", [])]
    roles = {"test": "in-domain"}
    tasks = [{**task, "role": roles.get(task.get("split"), "shifted")} for task in content.get("tasks", [])]
    return {**content, "tasks": tasks, "comparisons": pairs, "baselines": [], "vary": [], "training": None}


@cache
def _adapter() -> TypeAdapter[Results]:
    return TypeAdapter(Results)
