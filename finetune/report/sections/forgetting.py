"""What the tuned models can still do of what the untuned one could."""

from __future__ import annotations

from finetune.core.numbers import NONE
from finetune.core.run_dir import BASE
from finetune.metrics import unit
from finetune.report.blocks import Block, Cell, Column, Section, Table, Text, Tone
from finetune.report.drawing.plots import COLOURS
from finetune.results.reading import Study
from finetune.results.schema import EvaluationSet, ForgettingResult, Results

METHODS = [
    (
        "Forgetting",
        "A variant has kept what the untuned model could do where the whole interval of the change lies above the "
        "margin, the largest loss that the recipe accepts (a test for non-inferiority); it has lost it where the whole "
        "interval lies below. An interval that holds the margin shows neither.",
    )
]
"""(term, sentence) pairs for the section on methods."""

SAID = {"kept": "kept", "lost": "lost", "undecided": "not shown"}
TONES: dict[str, Tone] = {"kept": "good", "lost": "bad", "undecided": ""}


def sections(study: Study, results: Results) -> list[Section]:
    """Write a table for each set that is about what was known before; none without such a set."""
    blocks: list[Block] = []
    for task in results.tasks:
        rows = [row for row in results.forgetting if row.task == task.name]
        if rows:
            blocks += [Text(_intro(task), "muted"), _table(results, task, rows)]
    return [Section("forgetting", "What was kept of the untuned model", blocks)] if blocks else []


def _intro(task: EvaluationSet) -> str:
    shown = unit(task.metric)
    margin = shown.gap(task.margin).lstrip("+")
    return (
        f"{task.name}: {shown.label} of the untuned model and of the tuned ones. The recipe accepts that it gets worse "
        f"by {margin}; “kept” is said where no larger loss is to be expected from new seeds and new examples."
    )


def _table(results: Results, task: EvaluationSet, rows: list[ForgettingResult]) -> Table:
    shown = unit(task.metric)
    columns = [
        Column("variant", numeric=False),
        Column(shown.heading, "Mean over seeds, and its 95 % interval"),
        Column("change", "Against the untuned model, positive for better, with its 95 % interval"),
        Column("what was known", numeric=False),
    ]
    base = results.variant(BASE).estimates[task.key] if any(each.is_base for each in results.variants) else None
    table = [[Cell("untuned model"), Cell(shown.number(base.mean if base else None)), Cell(NONE), Cell(NONE)]]
    for index, row in enumerate(rows):
        found = results.variant(row.variant).estimates[task.key]
        table.append(
            [
                Cell(row.variant, colour=index % COLOURS),
                Cell(shown.number(found.mean), shown.interval(found.ci) if found.ci else ""),
                Cell(
                    shown.number(row.change, signed=True),
                    shown.interval(row.ci, signed=True) if row.ci else (row.reason or ""),
                ),
                Cell(SAID[row.verdict], tone=TONES[row.verdict]),
            ]
        )
    return Table(columns, table)
