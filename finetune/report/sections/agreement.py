"""Do a variant's seeds predict the same? Disagreement, Fleiss' kappa and churn."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from finetune.core.numbers import NONE, count, listing, share
from finetune.metrics.unit import Unit
from finetune.report.blocks import Block, Cell, Column, Fold, Panels, Section, Table, Text
from finetune.report.drawing.panels import BOTTOM, LEFT, RIGHT, TOP, Axis, frame
from finetune.report.drawing.plots import COLOURS
from finetune.report.drawing.svg import Scale, tag
from finetune.results.reading import Study
from finetune.results.schema import AgreementResult, EvaluationSet, Results, VariantResult

SHARE = Unit("share", scale=100, decimals=1, suffix="%")

INTRO = (
    "Two seeds can score the same and still answer differently: then it is partly luck which of them an example "
    "gets. Disagreement is the chance that two seeds of a variant give different answers to an example. Kappa is "
    "their agreement beyond chance: 1 is complete, 0 is no more than chance. A generated text counts as a whole, so "
    "one different word is disagreement. Intervals are over examples, for the seeds at hand. Failed runs that have "
    "predictions are in it."
)
CAPTION = "How many examples have 1, 2 or more seeds that differ from the most common prediction."


def sections(study: Study, results: Results) -> list[Section]:
    """The section on agreement; none where no variant has predictions of two seeds."""
    shown = [task for task in results.tasks if any(_found(variant, task) for variant in results.variants)]
    if not shown:
        return []
    blocks: list[Block] = [Text(INTRO, "muted"), _table(results, shown)]
    for task in shown:
        panels = [
            _panel(variant.name, found, _reach(results, task), index % COLOURS)
            for index, variant in enumerate(results.variants)
            if (found := _found(variant, task)) and found.flipped
        ]
        if not panels:
            continue
        caption = f"{CAPTION} On {task.name}."
        drawn = Panels(panels, caption)
        blocks.append(drawn if task is shown[0] else Fold(f"Disagreement on {task.name}", [drawn]))
    return [Section("agreement", "Do the seeds predict the same?", blocks)]


def _found(variant: VariantResult, task: EvaluationSet) -> AgreementResult | None:
    """Find the agreement of a variant with at least two seeds; None for others, and for the base model."""
    found = variant.agreement.get(task.name)
    return found if found and found.runs > 1 and not variant.is_base else None


def _table(results: Results, tasks: Sequence[EvaluationSet]) -> Table:
    several = len(tasks) > 1
    columns = [
        Column("variant", numeric=False),
        *([Column("task", numeric=False)] if several else []),
        Column("disagreement", "Chance that two seeds predict differently on an example, and its 95 % interval"),
        Column("kappa", "Fleiss' kappa, agreement of the seeds beyond that by chance, and its 95 % interval"),
        Column("examples that flip", "On which not all seeds agree, and the interval of their share"),
        Column("right or wrong by seed", "Examples that some seeds have right and others wrong"),
        Column("seeds"),
        Column("most divided", "Row numbers of the examples on which most pairs of seeds differ", numeric=False),
    ]
    rows, notes = [], dict[str, list[str]]()
    for task in tasks:
        for index, variant in enumerate(results.variants):
            found = _found(variant, task)
            if found is None:
                continue
            name = Cell(variant.name, colour=index % COLOURS)
            rows.append([name, *([Cell(task.name)] if several else []), *_cells(found)])
            for reason in dict.fromkeys(filter(None, (found.reason, found.kappa_reason))):
                where = f"{variant.name} on {task.name}" if several else variant.name
                notes.setdefault(reason, []).append(where)
    return Table(columns, rows, [f"{', '.join(names)}: {reason}." for reason, names in notes.items()])


def _cells(found: AgreementResult) -> list[Cell]:
    kappa = Unit("kappa")
    examples, divided = found.examples, [str(row.example) for row in found.most_divided]
    return [
        Cell(SHARE.value(found.disagreement), _interval(SHARE, found.disagreement_ci)),
        Cell(kappa.value(found.kappa), _interval(kappa, found.kappa_ci)),
        Cell(f"{count(found.flipped)} of {count(examples)}", _interval(SHARE, found.flipped_ci)),
        Cell(count(found.contested), share(found.contested or 0, examples)),
        Cell(count(found.runs)),
        Cell(", ".join(divided) or NONE, tone="muted"),
    ]


def _interval(unit: Unit, ci: Sequence[float] | None) -> str:
    return unit.interval(ci) if ci else ""


def _reach(results: Results, task: EvaluationSet) -> tuple[int, int]:
    """The largest number of dissenting seeds, and the largest number of examples with any one, over all variants."""
    counts = [found.dissenters for variant in results.variants if (found := _found(variant, task))]
    most = max((seeds for row in counts for seeds, examples in enumerate(row) if examples), default=1)
    return max(most, 1), max((examples for row in counts for examples in row[1:]), default=1)


def _panel(name: str, found: AgreementResult, reach: tuple[int, int], colour: int) -> Markup:
    """Draw as bars how many examples have 1, 2, 3 ... seeds that differ from the most common prediction."""
    seeds, most = reach
    agreed, rest = found.dissenters[0], [*found.dissenters[1:], *[0] * seeds][:seeds]
    heights = Scale(0, most * 1.05, BOTTOM, TOP)
    y = Axis(heights, [(value, count(value)) for value in heights.ticks(3) if value == round(value)], "examples")
    every = -(-seeds // 10)
    marks = [(float(k), str(k)) for k in range(1, seeds + 1) if (k - 1) % every == 0]
    alike = f"none on {count(agreed)} of {count(found.examples)}"
    x = Axis(Scale(0.5, seeds + 0.5, LEFT, RIGHT), marks, f"seeds that differ ({alike})")
    thick = min(40.0, 0.7 * (RIGHT - LEFT) / seeds)
    bars = []
    for k, examples in enumerate(rest, 1):
        title = f"{name}: {k} of {found.runs} seeds differ from the most common prediction on {count(examples)}"
        bar = tag("rect", x=x(k) - thick / 2, y=y(examples), width=thick, height=BOTTOM - y(examples), class_="bar")
        bars.append(tag("g", tag("title", title), bar))
    numbers = listing([f"{k} on {count(examples)}" for k, examples in enumerate(rest, 1) if examples])
    label = f"{name}, examples by how many seeds differ from the most common prediction: {alike}, {numbers}"
    return frame(name, label, x, y, bars, f"c{colour}")
