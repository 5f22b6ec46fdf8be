"""Which seed to take away, and what choosing it by validation is worth; what was taken away."""

from __future__ import annotations

from finetune.core.numbers import NONE, count
from finetune.metrics import unit
from finetune.report.blocks import Block, Cell, Column, Section, Table, Text
from finetune.report.drawing.plots import COLOURS
from finetune.results.reading import Study
from finetune.results.schema import ExportResult, Results, VariantResult

INTRO = (
    "Who needs one model takes the seed that is best by validation: “chosen” is what that one scores on the test set, "
    "and “expected” what the best by validation of as many seeds scores on average, over draws from these. “Best on "
    "test” is what the best of as many seeds would be by the test set itself. It is no choice: a seed chosen so has a "
    "score that new data would not repeat, and is never offered. A soup and an ensemble use all seeds instead."
)
TAKEN = "Models that were taken away, each with a certificate that it answers in its own engine as it was scored."

METHODS = [
    (
        "Choosing by validation",
        "Mean test score of the best by validation over draws from the seeds at hand, with replacement, as for the "
        "best of several (Dodge et al., EMNLP 2019).",
    )
]
"""(term, sentence) pairs for the section on methods."""


def sections(study: Study, results: Results) -> list[Section]:
    """The section on choosing; none where no variant's seeds were validated and nothing was taken away."""
    variants = [(index, each) for index, each in enumerate(results.variants)]
    chosen = [(index, each) for index, each in variants if each.choice is not None and each.choice.worth]
    taken = [(index, each, export) for index, each in variants for export in each.exports]
    blocks: list[Block] = [Text(INTRO, "muted"), _table(results, chosen)] if chosen else []
    if taken:
        blocks += [Text(TAKEN, "muted"), _exports(taken)]
    return [Section("choosing", "Which seed to take away", blocks)] if blocks else []


def _table(results: Results, chosen: list[tuple[int, VariantResult]]) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("metric", numeric=False),
        Column("best by validation", "The seed, and how many were validated", numeric=False),
        Column("chosen", "Its score on the test set"),
        Column("mean seed", "What a seed taken at random scores"),
        Column("expected", "Of the best by validation of as many seeds"),
        Column("best on test", "Expected best of as many seeds by the test set itself"),
        Column("soup", "Uniform, or greedy where there is one"),
        Column("ensemble"),
    ]
    rows = []
    for index, variant in chosen:
        assert variant.choice is not None
        for task in results.tasks:
            worth, shown = variant.choice.worth.get(task.key), unit(task.metric)
            if worth is None:
                continue
            made = {each.kind: each.scores.get(task.key) for each in variant.combined if each.status == "finished"}
            soup = made.get("soup-greedy", made.get("soup-uniform"))
            rows.append(
                [
                    Cell(variant.name, colour=index % COLOURS),
                    Cell(f"{shown.label} on {task.name}"),
                    Cell(f"seed {variant.choice.seed} of {variant.choice.seeds}, by {variant.choice.metric}"),
                    Cell(shown.value(worth.chosen)),
                    Cell(shown.value(worth.mean)),
                    Cell(shown.value(worth.expected_chosen)),
                    Cell(shown.value(worth.expected_best), tone="muted"),
                    Cell(shown.value(soup)),
                    Cell(shown.value(made.get("ensemble"))),
                ]
            )
    return Table(columns, rows)


def _exports(taken: list[tuple[int, VariantResult, ExportResult]]) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("seed", numeric=False),
        Column("form", numeric=False),
        Column("folder", numeric=False),
        Column("agreement", "Share of the held-out examples asked that it answers as the trained model does"),
        Column("examples"),
        Column("certificate", "First digits of its digest", numeric=False),
    ]
    rows = []
    for index, variant, export in taken:
        rows.append(
            [
                Cell(variant.name, colour=index % COLOURS),
                Cell("soup" if export.seed is None else str(export.seed)),
                Cell(export.kind),
                Cell(export.folder or NONE),
                Cell(unit("accuracy").value(export.agreement)),
                Cell(count(export.asked)),
                Cell(export.certificate[:12]),
            ]
        )
    return Table(columns, rows)
