"""The state of the loop: where it stands, and of each run its best score, its patience, whether it diverged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from finetune.train.options import TrainOptions


@dataclass(frozen=True)
class Validation:
    """The way in which weights are scored during training."""

    score: Callable[[], list[dict[str, float]]]
    """Scores of each replica on the validation split, by metric."""
    select: str
    higher_is_better: bool


@dataclass
class Trained:
    """The outcome of training, for one replica."""

    diverged: str | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class Taken:
    """The examples and tokens that one step took of one run."""

    examples: int
    tokens: int
    padded: int
    """Tokens with padding."""


@dataclass
class Position:
    """Where a run group stands; all of it is in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    seconds_validating: float = 0.0
    resumed: int = 0
    part: int | None = None
    """Examples of one replica that pass through the model at once, where memory has had a say."""
    flops_per_token: float | None = None
    """As the first step took them."""
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds by phase."""

    def scaled(self, by: float) -> Position:
        """Multiply the seconds by ``by``: from a group's to each run's share, and back."""
        phases = {phase: seconds * by for phase, seconds in self.phases.items()}
        return replace(self, seconds=self.seconds * by, seconds_validating=self.seconds_validating * by, phases=phases)


@dataclass
class ReplicaState:
    """The state of one run inside the loop; all of it is in the checkpoint."""

    steps: int = 0
    examples: int = 0
    tokens: int = 0
    padded: int = 0
    """Tokens that went through the model, padding among them."""
    validated: int = 0
    """The last step after which the validation split was scored."""
    best_score: float | None = None
    best_step: int | None = None
    waited: int = 0
    """Evaluations since the best one."""
    level: int = 0
    """Evaluations since the best one, or since the learning rate fell."""
    falls: list[int] = field(default_factory=list)
    """Steps after which the learning rate fell, the score being on a plateau."""
    stopped_early: bool = False
    diverged: str | None = None
    """Why training was given up; None while all is well."""
    first_losses: list[float] = field(default_factory=list)
    recent_losses: list[float] = field(default_factory=list)
    scale: float | None = None
    """In float16, what the loss is multiplied by."""
    since_overflow: int = 0
    """Steps since the gradient was not finite at that."""
    overflowed: int = 0
    """Steps that were left out for it."""

    @property
    def active(self) -> bool:
        return not self.stopped_early and self.diverged is None

    def awaits(self, step: int) -> bool:
        """Tell whether a score of the validation split after ``step`` would be news."""
        return self.active and step > self.validated

    def count(self, taken: Taken) -> None:
        """Add what a step took."""
        self.examples += taken.examples
        self.tokens += taken.tokens
        self.padded += taken.padded

    def watch(self, step: int, loss: float, norm: float, options: TrainOptions) -> None:
        """Check a step's loss and gradient norm, before it is applied, for signs of divergence."""
        limits = options.divergence
        if not math.isfinite(loss):
            self.diverged = f"the loss became {loss} at step {step + 1}"
            return
        if not math.isfinite(norm):
            self.diverged = f"the gradient's norm became {norm} at step {step + 1}"
            return
        if len(self.first_losses) < limits.window:
            self.first_losses.append(loss)
        self.recent_losses = [*self.recent_losses, loss][-limits.window :]
        level = sum(self.first_losses) / len(self.first_losses)
        recent = sum(self.recent_losses) / len(self.recent_losses)
        # A loss that starts near zero may multiply without harm, hence the floor of one tenth of a nat.
        if len(self.recent_losses) == limits.window and recent > limits.explode_factor * max(level, 0.1):
            self.diverged = (
                f"the loss exploded: {recent:.3g} over the last {limits.window} steps up to step {step + 1}, "
                f"{level:.3g} over the first"
            )

    def judge(self, step: int, score: float, higher_is_better: bool, options: TrainOptions) -> bool:
        """Record a validation score; True when it is the best so far."""
        stopping = options.early_stopping
        gain = math.inf if self.best_score is None else (score - self.best_score) * (1 if higher_is_better else -1)
        # A score that is not a number is never the best: nothing could beat it.
        better = gain > 0 and not math.isnan(score)
        self.waited = 0 if better and gain > (stopping.min_delta if stopping else 0) else self.waited + 1
        if stopping and self.waited >= stopping.patience:
            self.stopped_early = True
        if better:
            self.best_score, self.best_step = score, step
        self.level = 0 if better else self.level + 1
        if options.schedule == "plateau" and self.level >= options.plateau.patience:
            self.level = 0
            self.falls.append(step)
        return better
