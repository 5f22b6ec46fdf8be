"""How training went: loss, gradient norm and learning rate by step, and how far training and validation part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from finetune import stats
from finetune.report.blocks import Cell, Column, Panels, Section, Table, Text
from finetune.report.drawing.curves import LOSS, MANY, NORM, RATE, step_panels, validations
from finetune.report.drawing.plots import COLOURS
from finetune.report.reading import Run, Study
from finetune.report.units import count, unit

Results = dict[str, Any]

METHODS = [
    (
        "Overfitting gap",
        "Validation loss less training loss, seed by seed; then the mean over seeds, with an interval like a score's. "
        "The training loss is the mean over the epoch before that validation, of weights still moving, with dropout "
        "and with whatever a mitigation adds, so the gap of a run that does not overfit may be below zero. Diverged, "
        "crashed and unfinished runs are left out.",
    )
]
"""(term, sentence) pairs for the section on methods."""


def sections(study: Study, results: Results) -> list[Section]:
    """The loss's curves, always; gradient norm and learning rate; the overfitting gap where there is validation."""
    variants = {name: runs for name, runs in study.variants.items() if runs}
    losses, norms, rates = (step_panels(quantity, variants) for quantity in (LOSS, NORM, RATE))
    if not losses:
        return [Section("curves", "Training curves", [Text("No training step has been recorded.", "muted")])]
    most = max(map(len, variants.values()))
    lines = "one line per seed" if most <= MANY else f"of more than {MANY} seeds the median, with their range as a band"
    loss = f"Loss by step: {lines}. Solid: training; dashed: validation; a cross: a diverged run."
    made = [Section("curves", "Training curves", [Panels(losses, loss)])]
    if norms:
        norm = "The gradient's L2 norm by step, before clipping; lines as above."
        rate = "The learning rate by step: the median over seeds, and their range as a band where they differ."
        made.append(Section("steps", "Learning rate and gradient norm", [Panels(rates, rate), Panels(norms, norm)]))
    found = {name: overfitting_of(runs, results["level"]) for name, runs in variants.items()}
    if any(found.values()):
        made.append(Section("overfitting", "Overfitting", [_table(found)]))
    return made


@dataclass(frozen=True)
class Gap:
    """How far one run's validation loss is above its training loss, in the loss's own unit."""

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


def gap_of(run: Run) -> Gap | None:
    """The gap of one run; None for one that did not get to the end, or was never validated."""
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
    """Mean training loss over the epoch that ends there, or over as much of it as there was."""
    rows = (row for row in run.metrics if row["kind"] == "train" and epoch - 1 < row["epoch"] <= epoch)
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    return fmean(losses) if losses else None


def overfitting_of(runs: Sequence[Run], level: float) -> Results | None:
    """A variant's losses and gaps over seeds, each an estimate; None where no run was validated."""
    found = [gap for run in runs if (gap := gap_of(run)) is not None]
    if not found:
        return None
    estimates = {
        name: asdict(stats.estimate([getattr(gap, name) for gap in found], level))
        for name in ("train", "validation", "end", "kept", "rise")
    }
    return {
        "n": len(found),
        **estimates,
        "kept_step": median(gap.kept_step for gap in found),
        "last_step": median(gap.last_step for gap in found),
        "stopped_early": sum(gap.stopped_early for gap in found),
    }


def _table(found: dict[str, Results | None]) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("training loss", "Mean over the last epoch, mean over seeds"),
        Column("validation loss", "At the end of training, mean over seeds"),
        Column("gap", "Validation less training loss at the end, with its 95 % interval over seeds"),
        Column("gap of the weights kept", "The same where the weights that were scored were taken from"),
        Column("rise", "How far the validation loss at the end is above its lowest: mean and largest over seeds"),
        Column("kept from step", "Median over seeds; under it the last step"),
        Column("stopped early", "Runs whose validation score no longer improved, of those that got to an end"),
    ]
    rows = [_row(name, index, gap) for index, (name, gap) in enumerate(found.items()) if gap is not None]
    return Table(columns, rows)


def _row(name: str, index: int, gap: Results) -> list[Cell]:
    shown = unit("loss")
    return [
        Cell(name, colour=index % COLOURS),
        Cell(shown.number(gap["train"]["mean"])),
        Cell(shown.number(gap["validation"]["mean"])),
        _gap_cell(gap["end"]),
        _gap_cell(gap["kept"]),
        Cell(shown.number(gap["rise"]["mean"]), f"at most {shown.number(gap['rise']['max'])}"),
        Cell(count(gap["kept_step"]), f"of {count(gap['last_step'])}"),
        Cell(f"{gap['stopped_early']} of {gap['n']}"),
    ]


def _gap_cell(found: Results) -> Cell:
    shown = unit("loss")
    return Cell(
        shown.number(found["mean"], signed=True), shown.interval(found["ci"], signed=True) if found["ci"] else ""
    )
