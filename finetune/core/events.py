"""Events of a running study, for programs that listen: ``finetune.run(recipe, on_event=print)``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args


@dataclass(frozen=True)
class StudyOpened:
    """A study has its folder, and is about to run what is left of it."""

    folder: Path
    variants: list[str]
    seeds: list[int]
    finished: int
    """Runs that are finished already."""
    headline: str = ""
    """"set/metric" of the score that counts."""
    results: list[RunFinished] = field(default_factory=list)
    """What those runs came to."""
    asked: list[tuple[str, int]] = field(default_factory=list)
    """Variants and seeds of the runs that it is asked for, finished or not; none: for all."""


@dataclass(frozen=True)
class RunEvent:
    """Something that one run does."""

    variant: str
    seed: int | None
    """None for a stage that precedes the task."""


@dataclass(frozen=True)
class RunStarted(RunEvent):
    """A run begins, or goes on where it was interrupted."""

    together: int = 1
    """Runs that are trained side by side, this one among them."""


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


def finished_event(variant: str, seed: int | None, result: Mapping[str, Any]) -> RunFinished:
    """The event that a run's `result.json` is."""
    return RunFinished(variant, seed, result["status"], result["reason"], result["scores"], result["seconds"])


Event = StudyOpened | RunStarted | Step | Evaluated | RunFinished | StudyFinished


def to_json(event: Event) -> dict[str, Any]:
    """Give what an event says, for JSON; `event` names its kind, as in `run_finished`."""
    facts = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(event).items()}
    return {"event": _word(type(event)), **facts}


def from_json(said: Mapping[str, Any]) -> Event:
    """Make the event again of which :func:`to_json` gave this."""
    facts = {name: value for name, value in said.items() if name != "event"}
    if "folder" in facts:
        facts["folder"] = Path(facts["folder"])
    if "results" in facts:
        facts["results"] = [RunFinished(**each) for each in facts["results"]]
        facts["asked"] = [(variant, seed) for variant, seed in facts["asked"]]
    event: Event = _KINDS[said["event"]](**facts)
    return event


def _word(kind: type) -> str:
    return re.sub(r"(?<=.)([A-Z])", r"_\1", kind.__name__).lower()


_KINDS = {_word(kind): kind for kind in get_args(Event)}
