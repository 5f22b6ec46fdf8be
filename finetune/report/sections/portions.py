"""What a mixture is made of, and what became of the loss of each of its sources."""

from __future__ import annotations

from finetune.core.numbers import NONE, count
from finetune.metrics import unit
from finetune.report.blocks import Cell, Column, Section, Table, Text
from finetune.report.drawing.plots import COLOURS
from finetune.results.portions import portion_losses
from finetune.results.reading import Study
from finetune.results.schema import Results


def sections(study: Study, results: Results) -> list[Section]:
    """Write the losses by source; none where the training data have one source."""
    rows = portion_losses(study, results)
    if not rows:
        return []
    loss, colours = unit("loss"), {name: index % COLOURS for index, name in enumerate(study.variants)}
    intro = (
        "The training examples are a mixture of several sources. Where the training loss of a source is far below its "
        "held-out loss, it is learnt by heart: give it less weight. Losses of different sources say nothing of each "
        "other."
    )
    columns = [
        Column("variant", numeric=False),
        Column("source", numeric=False),
        Column("weight", "How often each of its examples is learnt from in an epoch"),
        Column("examples", "Learnt from in an epoch, repetitions among them"),
        Column("training loss", "Mean of the last tenth of the steps, and over seeds"),
        Column("held-out loss", "Of the examples of this source that were held out, with its 95 % interval over seeds"),
    ]
    table = [
        [
            Cell(row.variant, colour=colours[row.variant]),
            Cell(row.source),
            Cell(f"{row.weight:g}"),
            Cell(count(row.examples)),
            Cell(loss.number(row.training.mean)),
            Cell(loss.number(row.held_out.mean), _under(row.held_out_examples, loss.interval(row.held_out.ci))),
        ]
        for row in rows
    ]
    return [Section("portions", "Losses by source", [Text(intro, "muted"), Table(columns, table)])]


def _under(examples: int, interval: str) -> str:
    return f"{interval}, {count(examples)} examples" if examples and interval != NONE else ""
