"""Scores on each evaluation set: over seeds, in every metric, and run by run."""

from __future__ import annotations

from typing import Any

from finetune.core.numbers import NONE, count, seconds, share
from finetune.core.run_dir import BASE, FAILED
from finetune.metrics import unit
from finetune.metrics.unit import Unit
from finetune.report.blocks import Block, Cell, Column, Figure, Fold, Section, Table, Text
from finetune.report.drawing import plots
from finetune.report.sections.cells import plain, seed_cell, status_cell, variant_cell
from finetune.results.measure import BASE_REASON, SOLVED_METHOD
from finetune.results.reading import Study
from finetune.results.schema import EvaluationSet, Results, VariantResult

TRIES = (1, 2, 3, 5, 10, 15, 20, 30)
"""Numbers of seeds for which the expected best is written."""


def sections(study: Study, results: Results) -> list[Section]:
    """A section for each evaluation set."""
    return [_section(results, task) for task in results.tasks]


def _section(results: Results, task: EvaluationSet) -> Section:
    metric = unit(task.metric)
    direction = "higher" if task.higher_is_better else "lower"
    intro = f"{count(task.examples)} held-out examples. Headline metric: {metric.label}, {direction} is better."
    if task.majority is not None:
        intro += f" Always giving the most frequent label is right in {unit('accuracy').value(task.majority)}."
    blocks: list[Block] = [Text(intro, "muted"), _score_table(results, task), _seed_figure(results, task)]
    if len(task.metrics) > 1:
        blocks.append(_metric_table(results, task))
    if any(len(variant.estimates[task.key].expected_best) > 1 for variant in results.variants):
        blocks.append(Fold(f"Expected best of several seeds on {task.name}", [_best_table(results, task)]))
    blocks.append(Fold(f"Every run on {task.name}", [_run_table(results, task)]))
    return Section(f"task-{task.name}", f"Scores on {task.name}", blocks)


def _score_table(results: Results, task: EvaluationSet) -> Table:
    metric, key = unit(task.metric), task.key
    over = "new seeds and new examples" if _covers_examples(results, key) else "new seeds"
    columns = [
        Column("variant", numeric=False),
        Column(metric.heading, "Mean over the seeds that work"),
        Column("95 % interval", f"Of the mean, over {over}; under it over new seeds on these examples alone"),
        Column("failed", "Degenerate, diverged and crashed runs, of those that ended, and how many could (95 %)"),
        Column("in all", "Over all runs, those that fail among them, with a 95 % interval"),
        Column("SD", "Standard deviation over seeds, n - 1"),
        Column("test-set noise", "The SD that a test set of this size causes alone, were all seeds equally good"),
        Column("SD without it", "What would remain on an endless test set: how much the models really differ"),
        Column("stability", "See “How each number was computed”", numeric=False),
        Column("every seed", "Scores in the order of the seeds", numeric=False),
    ]
    rows = [_score_row(variant, key, index) for index, variant in enumerate(results.variants)]
    cheap = [_score_row(variant, key, None) for variant in results.baselines]
    return Table(columns, rows, _notes(results, key), below=cheap)


def _covers_examples(results: Results, key: str) -> bool:
    return any("new examples" in variant.estimates[key].method for variant in results.tuned)


def _score_row(variant: VariantResult, key: str, index: int | None) -> list[Cell]:
    metric, found, failures = unit(key.rpartition("/")[2]), variant.estimates[key], variant.failures
    fixed = index is None or variant.name == BASE or found.method == SOLVED_METHOD
    every = "  ".join(metric.number(run.scores.get(key)) for run in variant.runs)
    tones: dict[str, Any] = {"stable": "good", "unstable": "bad"}
    in_all = found.expected
    seeds = f"seeds {metric.interval(found.ci_seeds)}" if found.ci_seeds and found.ci_seeds != found.ci else ""
    limit = "" if failures.limit is None or fixed else f"up to {share(failures.limit, 1)}"
    return [
        Cell(variant.name) if index is None else variant_cell(variant, index),
        Cell(metric.number(found.mean)),
        Cell(metric.interval(found.ci), seeds),
        Cell(NONE if fixed else f"{failures.count} of {failures.n}", limit, tone="bad" if failures.count else ""),
        Cell(
            metric.number(in_all.mean if in_all else None), metric.interval(in_all.ci) if in_all and in_all.ci else ""
        ),
        Cell(metric.number(found.sd, more=1), _ends(metric, found.sd_ci)),
        Cell(metric.number(found.sd_floor, more=1)),
        Cell(metric.number(found.sd_corrected, more=1), _ends(metric, found.sd_corrected_ci)),
        Cell(NONE if fixed else variant.stability, tone=tones.get(variant.stability, "muted")),
        Cell(NONE if fixed else every, tone="muted"),
    ]


def _ends(metric: Unit, bounds: tuple[float, float] | None) -> str:
    """The interval of an SD, with the SD's decimals."""
    return "" if bounds is None else f"[{', '.join(metric.number(bound, more=1) for bound in bounds)}]"


def _notes(results: Results, key: str) -> list[str]:
    """List why numbers are missing or special, each reason once."""
    reasons: dict[str, list[str]] = {}
    for variant in results.variants:
        found = variant.estimates[key]
        if found.reason and found.reason != BASE_REASON:
            reasons.setdefault(found.reason, []).append(variant.name)
        if pooling := variant.pooling:
            how = f"{pooling.mode}{', normalised' if pooling.normalise else ''}"
            reasons.setdefault(f"pools tokens by {how}; {pooling.reason}", []).append(variant.name)
        if found.sd_corrected_clipped:
            clipped = "the estimate of the SD without noise fell below zero by chance and is shown as zero"
            reasons.setdefault(clipped, []).append(variant.name)
        if found.expected is not None and found.expected.reason and variant.failures.count:
            reasons.setdefault(f"“in all” is not known: {found.expected.reason}", []).append(variant.name)
    for cheap in results.baselines:
        for run in cheap.runs:
            if run.status in FAILED:
                said = next(iter((run.reason or "").splitlines()), run.status)
                reasons.setdefault(f"failed, {said}", []).append(cheap.name)
    return [f"{', '.join(names)}: {reason}." for reason, names in reasons.items()]


def _seed_figure(results: Results, task: EvaluationSet) -> Figure:
    caption = "Each dot is one seed"
    if any(variant.estimates[task.key].ci for variant in results.variants):
        caption += ", the line their mean, the band its 95 % interval"
    if any(variant.failures.count for variant in results.variants):
        caption += "; a cross is a failed run"
    drawings = [plots.seed_plot(results, task, narrow) for narrow in (False, True)]
    return Figure(drawings[0], drawings[1], f"{caption}.")


def _metric_table(results: Results, task: EvaluationSet) -> Table:
    """The other metrics: mean, and under it the interval."""
    others = [metric for metric in task.metrics if metric.name != task.metric]
    arrows = {True: "↑", False: "↓"}
    columns = [Column("other metrics", numeric=False)] + [
        Column(f"{unit(metric.name).heading} {arrows[metric.higher_is_better]}", "Mean, and its 95 % interval")
        for metric in others
    ]
    rows = []
    for index, variant in enumerate(results.variants):
        row = [variant_cell(variant, index)]
        for metric in others:
            found, shown = variant.estimates[task.key_of(metric.name)], unit(metric.name)
            row.append(Cell(shown.number(found.mean), shown.interval(found.ci) if found.ci else ""))
        rows.append(row)
    return Table(columns, rows)


def _best_table(results: Results, task: EvaluationSet) -> Table:
    """Show the score to expect of the best of some seeds by this metric: an estimate for few draws."""
    metric, numbers = unit(task.metric), [number for number in TRIES if number <= len(results.seeds)]
    columns = [Column("variant", numeric=False)]
    columns += [Column(f"best of {number}" if number > 1 else "one seed") for number in numbers]
    rows = []
    for index, variant in enumerate(results.variants):
        found = variant.estimates[task.key].expected_best
        if len(found) > 1:
            ends = variant.estimates[task.key].expected_best_ci
            cells = [
                Cell(metric.number(found[number - 1]), metric.interval(ends[number - 1]) if ends else "")
                if number <= len(found)
                else Cell(NONE)
                for number in numbers
            ]
            rows.append([plain(variant_cell(variant, index)), *cells])
    note = (
        f"{metric.heading}, expected over draws from the seeds at hand, with replacement (Dodge et al., EMNLP 2019). "
        "The best by the test score itself flatters: it says what choosing by luck would seem to gain. In brackets: "
        "95 % intervals over new seeds, of any distribution (Lourie et al., NAACL 2024)."
    )
    return Table(columns, rows, [note])


def _run_table(results: Results, task: EvaluationSet) -> Table:
    columns = [Column("variant", numeric=False), Column("seed"), Column("status", numeric=False)]
    columns += [Column(unit(metric.name).heading) for metric in task.metrics] + [Column("time")]
    rows = []
    for index, variant in enumerate(results.variants):
        for run in variant.runs:
            scores = [
                Cell(unit(metric.name).number(run.scores.get(task.key_of(metric.name)))) for metric in task.metrics
            ]
            name = plain(variant_cell(variant, index))
            rows.append([name, seed_cell(run), status_cell(run), *scores, Cell(seconds(run.seconds))])
    return Table(columns, rows)
