"""Overfitting: how far the losses of training and validation part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from finetune import stats
from finetune.results.reading import Run


@dataclass(frozen=True)
class Gap:
    """The gap of one run between validation and training loss, in the loss's own unit."""

    train: float
    """Training loss over the last epoch."""
    validation: float
    """The last validation loss."""
    end: float
    """The gap between these two."""
    kept: float
    """The gap where the weights were taken from."""
    rise: float
    """How far the last validation loss is above the lowest."""
    kept_step: int
    last_step: int
    stopped_early: bool


@dataclass(frozen=True)
class Overfitting:
    """A variant's losses and gaps over seeds; fields are those of :class:`Gap`."""

    n: int
    train: stats.Estimate
    validation: stats.Estimate
    end: stats.Estimate
    kept: stats.Estimate
    rise: stats.Estimate
    kept_step: float
    """Median over seeds."""
    last_step: float
    """Median over seeds."""
    stopped_early: int
    """How many runs were."""


def validations(run: Run) -> list[dict[str, Any]]:
    """Read the records of a run's validations that have a finite loss."""
    return [row for row in run.metrics if row["kind"] == "evaluation" and row["scores"].get("loss") is not None]


def gap_of(run: Run) -> Gap | None:
    """Compute the gap of one run; None for one that did not get to the end, or was never validated."""
    rows = validations(run)
    if not rows or run.result["status"] not in ("finished", "degenerate"):
        return None
    last, facts = rows[-1], run.result.get("training") or {}
    kept = next((row for row in rows if row["step"] == facts.get("best_step")), last)
    losses = [row["scores"]["loss"] for row in rows]
    train, train_kept = (_training_loss(run, row["epoch"]) for row in (last, kept))
    if train is None or train_kept is None:
        return None
    return Gap(
        train=train,
        validation=losses[-1],
        end=losses[-1] - train,
        kept=kept["scores"]["loss"] - train_kept,
        rise=losses[-1] - min(losses),
        kept_step=kept["step"],
        last_step=last["step"],
        stopped_early=bool(facts.get("stopped_early")),
    )


def _training_loss(run: Run, epoch: float) -> float | None:
    """Average the training loss over the epoch that ends there, or over as much of it as there was."""
    rows = (row for row in run.metrics if row["kind"] == "train" and epoch - 1 < row["epoch"] <= epoch)
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    return fmean(losses) if losses else None


def overfitting_of(runs: Sequence[Run], level: float) -> Overfitting | None:
    """Estimate a variant's losses and gaps over seeds; None where no run was validated."""
    found = [gap for run in runs if (gap := gap_of(run)) is not None]
    if not found:
        return None

    def over_seeds(name: str) -> stats.Estimate:
        return stats.estimate([getattr(gap, name) for gap in found], level)

    return Overfitting(
        n=len(found),
        train=over_seeds("train"),
        validation=over_seeds("validation"),
        end=over_seeds("end"),
        kept=over_seeds("kept"),
        rise=over_seeds("rise"),
        kept_step=median(gap.kept_step for gap in found),
        last_step=median(gap.last_step for gap in found),
        stopped_early=sum(gap.stopped_early for gap in found),
    )
