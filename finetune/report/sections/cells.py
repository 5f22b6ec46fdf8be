"""Cells that several sections have in common."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.core.numbers import NONE
from finetune.core.run_dir import BASE, FAILED
from finetune.report.blocks import Bullets, Cell, Column, Fold, Tone
from finetune.report.drawing import plots
from finetune.results.schema import RunResult, VariantResult


def legend(columns: Sequence[Column]) -> Fold:
    """What hovering over the headings explains, for paper, phones and Markdown, which know no hovering."""
    items = [(column.title, f"{column.help}.") for column in columns if column.help]
    return Fold("What the columns mean", [Bullets(items)])


def variant_cell(variant: VariantResult, index: int) -> Cell:
    if variant.name == BASE:
        return Cell(BASE, "untuned")
    strategy = variant.strategy
    return Cell(variant.name, strategy if strategy != variant.name else "", colour=index % plots.COLOURS)


def plain(cell: Cell) -> Cell:
    """The cell without its second line, for long tables."""
    return Cell(cell.text, tone=cell.tone, colour=cell.colour)


def seed_cell(run: RunResult) -> Cell:
    return Cell(NONE if run.seed is None else str(run.seed))


def status_cell(run: RunResult) -> Cell:
    tones: dict[str, Tone] = {"finished": "", "interrupted": "muted"}
    return Cell(run.status, tone=tones.get(run.status, "bad"))


def was_asked(cheap: VariantResult, key: str) -> bool:
    """Tell whether a cheap baseline was asked what the score ``key`` is about, also where it failed: none answers sets
    that have a task of their own."""
    found = cheap.estimates.get(key)
    return bool(found is not None and found.n) or any(run.status in FAILED for run in cheap.runs)
