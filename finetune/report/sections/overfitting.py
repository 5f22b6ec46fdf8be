"""Overfitting: how far the losses of training and validation part."""

from __future__ import annotations

from finetune.core.numbers import count
from finetune.metrics import unit
from finetune.report.blocks import Cell, Column, Section, Table
from finetune.report.drawing.plots import COLOURS
from finetune.report.sections.cells import legend
from finetune.results.overfitting import Overfitting, overfitting_of
from finetune.results.reading import Study
from finetune.results.schema import Results
from finetune.stats import Estimate

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
    """The gap, where there is validation."""
    found = {name: overfitting_of(runs, results.level) for name, runs in study.variants.items() if runs}
    return (
        [Section("overfitting", "Overfitting", [table := _table(found), legend(table.columns)])]
        if any(found.values())
        else []
    )


def _table(found: dict[str, Overfitting | None]) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("training loss", "Mean over the last epoch, mean over seeds"),
        Column("validation loss", "At the end of training, mean over seeds"),
        Column(
            "gap",
            "Validation less training loss at the end, with its 95 % interval; the larger, the more it overfits",
        ),
        Column("gap, weights kept", "The same where the weights that were scored were taken from"),
        Column("rise", "How far the validation loss at the end is above its lowest: mean and largest over seeds"),
        Column("kept from step", "Median over seeds; under it the last step"),
        Column("stopped early", "Runs whose validation score no longer improved, of those that got to an end"),
    ]
    rows = [_row(name, index, gap) for index, (name, gap) in enumerate(found.items()) if gap is not None]
    return Table(columns, rows)


def _row(name: str, index: int, gap: Overfitting) -> list[Cell]:
    shown = unit("loss")
    return [
        Cell(name, colour=index % COLOURS),
        Cell(shown.number(gap.train.mean)),
        Cell(shown.number(gap.validation.mean)),
        _gap_cell(gap.end),
        _gap_cell(gap.kept),
        Cell(shown.number(gap.rise.mean), f"at most {shown.number(gap.rise.max)}"),
        Cell(count(gap.kept_step), f"of {count(gap.last_step)}"),
        Cell(f"{gap.stopped_early} of {gap.n}"),
    ]


def _gap_cell(found: Estimate) -> Cell:
    shown = unit("loss")
    return Cell(shown.number(found.mean, signed=True), shown.interval(found.ci, signed=True) if found.ci else "")
