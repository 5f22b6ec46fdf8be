"""The runs of a study, and the evaluation sets on which they were scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Direction:
    """A metric of an evaluation set, and which way is up."""

    name: str
    """The metric's name."""
    higher_is_better: bool


@dataclass(frozen=True)
class EvaluationSet:
    """A set of examples that was scored: an entry of `tasks`."""

    name: str
    """As the recipe calls it; `test` for the held-out part of the data."""
    split: str
    """`test`, from the training data's own source, or `evaluate`, other data."""
    metric: str
    """The headline metric, from which verdicts are read."""
    higher_is_better: bool
    """Of the headline metric."""
    examples: int
    """How many were scored."""
    metrics: list[Direction]
    """All that were computed, the headline first."""
    majority: float | None = None
    """Share of examples with the most frequent label; null where there are no labels."""
    role: Literal["in-domain", "shifted", "forgetting"] = "in-domain"
    """What it is asked for: the study's own data, other data, or what the base model could do before."""
    margin: float | None = None
    """By how much a variant may be worse than the untuned model without having forgotten, in the headline metric's own
    unit; null but for role `forgetting`."""
    cut: int | None = None
    """Examples whose text is longer than the limit and was cut; null where that is not known."""
    leaked: int | None = None
    """Examples that were learnt from as well; null where that is not known."""

    @property
    def key(self) -> str:
        """ "set/metric" of the headline, under which scores and estimates stand."""
        return f"{self.name}/{self.metric}"

    def key_of(self, metric: str) -> str:
        """ "set/metric" of another metric."""
        return f"{self.name}/{metric}"

    @property
    def sign(self) -> int:
        """1 where a higher headline is better, -1 where a lower one is."""
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True)
class TrainingData:
    """What the runs learnt from."""

    examples: int
    """How many."""
    cut: int | None
    """Those whose text is longer than the limit and was cut."""
    varies: bool
    """Whether each seed learnt from other examples of the data."""
    distinct: int | None = None
    """How many of them differ; of a mixture, some are there more than once. `null`: all."""


@dataclass(frozen=True)
class ExportResult:
    """A model that was taken out of the study, with its certificate."""

    kind: str
    """What it was written as."""
    seed: int | None
    """Of the run that it is."""
    certificate: str
    """Digest of the certificate that lies beside it."""
    folder: str | None = None
    """The name of the folder that it was written to; null: not known."""
    agreement: float | None = None
    """Share of the held-out examples asked on which it answered in its own engine as the trained model did."""
    asked: int | None = None
    """How many these were."""


@dataclass(frozen=True)
class Worth:
    """What choosing by validation is worth by one metric of an evaluation set, in the metric's own unit."""

    mean: float
    """Of the seeds that were validated: what a seed taken at random scores."""
    chosen: float
    """Score of the seed that was best by validation."""
    expected_chosen: float
    """Expected score of the best by validation of as many seeds, over draws from these."""
    expected_best: float
    """Expected score of the best of as many seeds by this metric itself: what no choice by validation can surpass, and
    what nobody may claim who has looked at the test set."""


@dataclass(frozen=True)
class ChoiceResult:
    """Choosing one of a variant's seeds by its score on the validation split."""

    metric: str
    """The validation metric (`train.select`)."""
    seeds: int
    """How many were validated."""
    seed: int | None
    """The best one by it."""
    worth: dict[str, Worth]
    """By "set/metric", of headline metrics."""


@dataclass(frozen=True)
class Parameters:
    """The parameters of a model: how many there are, and how many of them learn."""

    total: int
    """All of them."""
    trainable: int
    """Those that learn."""


@dataclass(frozen=True)
class PoolingResult:
    """The way in which a head of our own pools tokens."""

    mode: str
    """`cls`, `last`, `mean` or `max`."""
    normalise: bool
    """Whether the vector is divided by its length."""
    reason: str
    """Where that is known from."""


@dataclass(frozen=True)
class RunResult:
    """One run: a variant under a seed."""

    seed: int | None
    """Null for the untuned base model."""
    status: str
    """`finished`, `degenerate`, `diverged`, `error` or `interrupted`."""
    reason: str | None
    """Why it failed or is unfinished; null for a finished run."""
    seconds: float | None
    """Loading, training and scoring; of seeds side by side, its share."""
    peak_memory_bytes: int | None
    """The largest while loading, training and scoring."""
    scores: dict[str, float]
    """By "set/metric"; those that could be computed."""
