"""Cells that several sections have in common."""

from __future__ import annotations

from finetune.core.numbers import NONE
from finetune.core.run_dir import BASE
from finetune.report.blocks import Cell, Tone
from finetune.report.drawing import plots
from finetune.results.schema import RunResult, VariantResult


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
