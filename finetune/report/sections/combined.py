"""Combinations of a variant's seeds (soups, ensembles), beside the mean of the same seeds."""

from __future__ import annotations

from finetune.core.numbers import seconds
from finetune.metrics import unit
from finetune.report.blocks import Block, Cell, Column, Fold, Section, Table, Text
from finetune.report.drawing.plots import COLOURS
from finetune.results.reading import Study
from finetune.results.schema import CombinedResult, Results, VariantResult

INTRO = (
    "A soup is one model from the averaged weights of a variant's finished seeds; an ensemble averages their "
    "probabilities. None of it is in a mean or an SD above. The gain is how much better it is than the mean of the "
    "seeds it could be made of; below zero it is worse. The interval of the gain is over examples, for these seeds: "
    "with other seeds it may be another."
)


def sections(study: Study, results: Results) -> list[Section]:
    """The section on combinations; none where nothing was combined."""
    if not any(variant.combined for variant in results.variants):
        return []
    blocks: list[Block] = [Text(INTRO, "muted")]
    headlines = [(task.name, task.metric) for task in results.tasks]
    others = [
        (task.name, metric.name) for task in results.tasks for metric in task.metrics if metric.name != task.metric
    ]
    blocks.append(_table(results, headlines))
    if others:
        blocks.append(Fold("Soups and ensembles on the other metrics", [_table(results, others)]))
    return [Section("combined", "Soups and ensembles", blocks)]


def _table(results: Results, metrics: list[tuple[str, str]]) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("combination", numeric=False),
        Column("metric", numeric=False),
        Column("score"),
        Column("mean seed", "Mean of the finished seeds that it could be made of"),
        Column("gain", "Positive where the combination is better"),
        Column("95 % interval", "Student t interval over examples"),
        Column("made of", "Seeds", numeric=False),
        Column("time"),
    ]
    rows = [
        _row(variant, index, made, *metric)
        for index, variant in enumerate(results.variants)
        for made in variant.combined
        for metric in metrics
    ]
    reasons = {
        f"{variant.name}, {made.kind}: {made.reason}."
        for variant in results.variants
        for made in variant.combined
        if made.reason
    }
    return Table(columns, rows, sorted(reasons))


def _row(variant: VariantResult, index: int, made: CombinedResult, task: str, metric: str) -> list[Cell]:
    key, shown = f"{task}/{metric}", unit(metric)
    gain = made.gain.get(key)
    mean, ci, mean_seed = (None, None, None) if gain is None else (gain.mean, gain.ci, gain.mean_seed)
    failed = made.status != "finished"
    low, high = ci or (0.0, 0.0)
    return [
        Cell(variant.name, colour=index % COLOURS),
        Cell(made.kind, tone="bad" if failed else ""),
        Cell(f"{shown.label} on {task}"),
        Cell(shown.value(made.scores.get(key))),
        Cell(shown.value(mean_seed)),
        Cell(shown.gap(mean), tone="good" if low > 0 else "bad" if high < 0 else ""),
        Cell(shown.interval(ci, signed=True)),
        Cell(made.status if failed else _seeds(made), tone="bad" if failed else "muted"),
        Cell(seconds(made.seconds)),
    ]


def _seeds(made: CombinedResult) -> str:
    """Say which seeds it is made of; how many, where all are in it."""
    if made.seeds == made.of:
        return f"all {len(made.of)} that finished" if len(made.of) > 1 else "the one that finished"
    return f"seed{'s' if len(made.seeds) > 1 else ''} {', '.join(map(str, made.seeds))}, of {len(made.of)}"
