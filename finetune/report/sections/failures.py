"""Runs that failed or are unfinished, each with its reason."""

from __future__ import annotations

from finetune.core.numbers import NONE
from finetune.report.blocks import Cell, Column, Section, Table, Text
from finetune.report.sections.cells import plain, seed_cell, status_cell, variant_cell
from finetune.results.reading import Study
from finetune.results.schema import Results

INTRO = (
    "Degenerate: it trained, and is not shown to beat always giving the same answer (the commonest label, the mean "
    "number), or the untuned model. Diverged: its loss or gradient was not finite, or its loss exploded. "
    "Error: an exception stopped it. Interrupted: running the recipe again resumes it. All but the last are counted as "
    "failed; none is in a mean."
)


def sections(study: Study, results: Results) -> list[Section]:
    """The section on them, also where there are none."""
    rows = []
    for index, variant in enumerate(results.variants):
        for run in variant.runs:
            if run.status != "finished":
                reason = Cell(run.reason or NONE)
                rows.append([plain(variant_cell(variant, index)), seed_cell(run), status_cell(run), reason])
    title = "Failed and unfinished runs"
    if not rows:
        return [Section("failures", title, [Text("None failed.")])]
    columns = [Column("variant", numeric=False), Column("seed")]
    columns += [Column("status", numeric=False), Column("why", numeric=False)]
    return [Section("failures", title, [Text(INTRO, "muted"), Table(columns, rows)])]
