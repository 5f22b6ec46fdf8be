"""Scores on each evaluation set: over seeds, in every metric, and run by run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune.core.numbers import NONE, count, seconds, share
from finetune.core.run_dir import BASE, FAILED
from finetune.metrics import unit
from finetune.metrics.unit import Unit
from finetune.report.blocks import Block, Cell, Column, Figure, Fold, Section, Table, Text
from finetune.report.drawing import plots
from finetune.report.sections.cells import legend, plain, seed_cell, status_cell, variant_cell, was_asked
from finetune.results.measure import BASE_REASON, SOLVED_METHOD
from finetune.results.reading import Study
from finetune.results.schema import EvaluationSet, Results, VariantResult

TRIES = (1, 2, 3, 5, 10, 15, 20, 30)
"""Numbers of seeds for which the expected best is written."""

BEST = (
    "The test score to expect for those who train so many seeds and keep the one that scores best on the test set. "
    "Such a best flatters, as part of it is luck that new data would not repeat. So compare variants by their "
    "means, and hold a best score that somebody reports against the column with as many seeds."
)

METHODS = [
    (
        "Best of several",
        "Mean of the best over draws from the seeds at hand, with replacement (Dodge et al., EMNLP 2019). Its interval "
        "is over new seeds, whatever their distribution (Lourie et al., NAACL 2024).",
    )
]
"""(term, sentence) pairs for the section on methods."""


def sections(study: Study, results: Results) -> list[Section]:
    """A section for each evaluation set."""
    return [_section(study, results, task) for task in results.tasks]


def _section(study: Study, results: Results, task: EvaluationSet) -> Section:
    metric = unit(task.metric)
    direction = "higher" if task.higher_is_better else "lower"
    intro = f"{count(task.examples)} held-out examples. Variants are judged by {metric.label}: {direction} is better."
    if task.majority is not None:
        intro += f" Always giving the most frequent label is right in {unit('accuracy').value(task.majority)}."
    table = _score_table(study, results, task)
    blocks: list[Block] = [Text(intro, "muted"), table, legend(table.columns), _seed_figure(results, task)]
    if len(task.metrics) > 1:
        blocks.append(_metric_table(results, task))
    if any(len(variant.estimates[task.key].expected_best) > 1 for variant in results.variants):
        best: list[Block] = [Text(BEST, "muted"), _best_table(results, task)]
        blocks.append(Fold(f"Keeping the best of several seeds on {task.name}", best))
    blocks.append(Fold(f"Every run on {task.name}", [_run_table(results, task)]))
    return Section(f"task-{task.name}", f"Scores on {task.name}", blocks)


def _score_table(study: Study, results: Results, task: EvaluationSet) -> Table:
    metric, key = unit(task.metric), task.key
    interval = "Where the mean would lie with endless {}, as far as these runs can tell"
    if _covers_examples(results, key):
        interval = f"{interval.format('seeds and examples')}; after “seeds”, with endless seeds on these same examples"
    columns = [
        Column("variant", numeric=False),
        Column(metric.heading, "Mean over the seeds whose run did not fail"),
        Column("95 % interval", interval.format("seeds on these same examples")),
        Column(
            "failed",
            "Runs that crashed, diverged or learnt nothing, of those that ended; “up to” is the highest failure rate "
            "that these runs do not rule out",
        ),
        Column(
            "with failures",
            "The mean score to expect of a new run, which may fail too; its 95 % interval is wide after few seeds, "
            "because they do not rule out a high failure rate",
        ),
        Column("SD", "How far the seeds' scores lie apart: their standard deviation, and its 95 % interval"),
        Column(
            "test-set noise",
            "The SD that seeds would have on a test set of this size by the luck of its examples alone, were all "
            "their models equally good",
        ),
        Column(
            "SD without noise",
            "What remains of the SD without test-set noise: how far the models themselves differ; 0 means that no "
            "difference is seen, and the interval how large it may be",
        ),
        Column(
            "stability",
            "Stable: these runs rule out that more than 15 % fail. Unstable: they rule out that 15 % or fewer do. "
            "Undecided: they are too few to say; twenty runs without a failure are enough",
            numeric=False,
        ),
    ]
    rows = [_score_row(variant, key, index) for index, variant in enumerate(results.variants)]
    asked = [variant for variant in results.baselines if was_asked(variant, key)]
    cheap = [_score_row(variant, key, None) for variant in asked]
    return Table(columns, rows, [*_notes(results, key), *_about(study, asked)], below=cheap)


def _about(study: Study, asked: Sequence[VariantResult]) -> list[str]:
    """Say what the rows below the rule are."""
    said = [(cheap.name, study.baselines[cheap.name].result.get("about", "")) for cheap in asked]
    return [f"{name}, without fine-tuning: {text[:1].lower()}{text[1:]}" for name, text in said if text]


def _covers_examples(results: Results, key: str) -> bool:
    return any("new examples" in variant.estimates[key].method for variant in results.tuned)


def _score_row(variant: VariantResult, key: str, index: int | None) -> list[Cell]:
    metric, found, failures = unit(key.rpartition("/")[2]), variant.estimates[key], variant.failures
    fixed = index is None or variant.name == BASE or found.method == SOLVED_METHOD
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
            clipped = (
                "the seeds lie no further apart than test-set noise would bring, so “SD without noise” is shown as 0"
            )
            reasons.setdefault(clipped, []).append(variant.name)
        if found.expected is not None and found.expected.reason and variant.failures.count:
            known = "is not known" if found.expected.mean is None else "has no interval"
            reasons.setdefault(f"“with failures” {known}: {found.expected.reason}", []).append(variant.name)
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
    return Table(columns, rows, [f"{metric.heading}. In brackets: 95 % intervals over new seeds."])


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
