"""Events of a running study, for programs that listen: ``finetune.run(recipe, on_event=print)``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StudyOpened:
    """A study has its folder, and is about to run what is left of it."""

    folder: Path
    variants: list[str]
    seeds: list[int]
    finished: int
    """Runs that are finished already."""


@dataclass(frozen=True)
class RunEvent:
    """Something that one run does."""

    variant: str
    seed: int | None
    """None for a stage that precedes the task."""


@dataclass(frozen=True)
class RunStarted(RunEvent):
    """A run begins, or goes on where it was interrupted."""


@dataclass(frozen=True)
class Step(RunEvent):
    """Training has come so far: a line of `metrics.jsonl`."""

    step: int
    epoch: float
    loss: float | None
    """Mean over the steps since the last one; None where it is not finite."""
    learning_rate: float
    gradient_norm: float | None


@dataclass(frozen=True)
class Evaluated(RunEvent):
    """The validation examples were scored."""

    step: int
    epoch: float
    scores: dict[str, float | None]
    """By metric."""


@dataclass(frozen=True)
class RunFinished(RunEvent):
    """A run has its result."""

    status: str
    """`finished`, `degenerate`, `diverged` or `error`."""
    reason: str | None
    scores: dict[str, float]
    """By "set/metric"."""
    seconds: float | None


@dataclass(frozen=True)
class StudyFinished:
    """Everything is done, and the report is written."""

    folder: Path
    failed: int


def training_event(variant: str, seed: int | None, row: Mapping[str, Any]) -> Step | Evaluated:
    """The event that a row of `metrics.jsonl` is."""
    if row["kind"] == "evaluation":
        return Evaluated(variant, seed, row["step"], row["epoch"], row["scores"])
    return Step(variant, seed, row["step"], row["epoch"], row["loss"], row["learning_rate"], row["gradient_norm"])


Event = StudyOpened | RunStarted | Step | Evaluated | RunFinished | StudyFinished
