"""Puts a report together: which blocks it has, top to bottom, with every number written out once."""

from __future__ import annotations

from typing import Any

from finetune.core.run_dir import BASE, FAILED
from finetune.report.blocks import Block, Cell, Column, Document, Figure, Fold, Section, Table, Text
from finetune.report.drawing import plots
from finetune.report.measured import BASE_REASON
from finetune.report.reading import Study
from finetune.report.sections import (
    across,
    agreement,
    appendix,
    calibration,
    combined,
    cost,
    diagnosis,
    differences,
    domains,
    methods,
    mistakes,
    training,
)
from finetune.report.units import NONE, Unit, count, seconds, unit
from finetune.report.verdict import verdict_of

Results = dict[str, Any]

TRIES = (1, 2, 3, 5, 10, 15, 20, 30)
"""Numbers of seeds for which the expected best is written."""


def document(study: Study, results: Results) -> Document:
    """The whole report."""
    curves, *further = training.sections(study, results)
    sections = [
        diagnosis.section(study, results),
        *(_task_section(results, task) for task in results["tasks"]),
        differences.section(results),
        *across.sections(study, results),
        *agreement.sections(study, results),
        *combined.sections(results),
        curves,
        domains.section(study, results),
        calibration.section(study, results),
        *further,
        mistakes.section(study, results),
        _failure_section(results),
        appendix.data_section(study),
        cost.section(study, results),
        appendix.recipe_section(study),
        appendix.environment_section(study),
        methods.method_section(study),
    ]
    shown = [section for section in sections if section is not None]
    return Document(results["study"], verdict_of(results), _facts(study, results), shown)


def _facts(study: Study, results: Results) -> list[tuple[str, str]]:
    """The study in a few small numbers, under the verdict."""
    tuned = [variant for variant in results["variants"] if variant["name"] != BASE]
    ended = sum(variant["failures"]["n"] for variant in tuned)
    spent = sum(run.result.get("seconds") or 0 for run in study.runs)
    return [
        ("variants", count(len(tuned))),
        ("seeds", count(len(study.seeds))),
        ("runs ended", f"{ended} of {len(tuned) * len(study.seeds)}"),
        ("failed", count(sum(variant["failures"]["count"] for variant in tuned))),
        ("computing time", seconds(spent)),
        ("device", study.computed_on),
        *([("mixed", mixed)] if (mixed := appendix.mixed(study)) else []),
        ("digest", study.digest[:12]),
    ]


def _task_section(results: Results, task: dict[str, Any]) -> Section:
    metric = unit(task["metric"])
    direction = "higher" if task["higher_is_better"] else "lower"
    intro = f"{count(task['examples'])} held-out examples. Headline metric: {metric.label}, {direction} is better."
    if task["majority"] is not None:
        intro += f" Always giving the most frequent label is right in {unit('accuracy').value(task['majority'])}."
    blocks: list[Block] = [Text(intro, "muted"), _score_table(results, task), _seed_figure(results, task)]
    if len(task["metrics"]) > 1:
        blocks.append(_metric_table(results, task))
    if any(len(variant["estimates"][_key(task)]["expected_best"]) > 1 for variant in results["variants"]):
        blocks.append(Fold(f"Expected best of several seeds on {task['name']}", [_best_table(results, task)]))
    blocks.append(Fold(f"Every run on {task['name']}", [_run_table(results, task)]))
    return Section(f"task-{task['name']}", f"Scores on {task['name']}", blocks)


def _score_table(results: Results, task: dict[str, Any]) -> Table:
    metric, key = unit(task["metric"]), f"{task['name']}/{task['metric']}"
    columns = [
        Column("variant", numeric=False),
        Column(metric.heading, "Mean over seeds"),
        Column("95 % interval", "Of the mean over seeds"),
        Column("SD", "Standard deviation over seeds, n - 1"),
        Column("test-set noise", "The SD that a test set of this size causes alone, were all seeds equally good"),
        Column("SD without it", "What would remain on an endless test set: how much the models really differ"),
        Column("every seed", "Scores in the order of the seeds", numeric=False),
        Column("failed", "Degenerate, diverged and crashed runs, of those that ended"),
        Column("stability", "See “How each number was computed”", numeric=False),
    ]
    rows = [_score_row(variant, key, index) for index, variant in enumerate(results["variants"])]
    return Table(columns, rows, _notes(results, key))


def _score_row(variant: dict[str, Any], key: str, index: int) -> list[Cell]:
    metric, found, failures = unit(key.rpartition("/")[2]), variant["estimates"][key], variant["failures"]
    is_base = variant["name"] == BASE
    every = "  ".join(metric.number(run["scores"].get(key)) for run in variant["runs"])
    tones: dict[str, Any] = {"stable": "good", "unstable": "bad"}
    return [
        _variant_cell(variant, index),
        Cell(metric.number(found["mean"])),
        Cell(metric.interval(found["ci"])),
        Cell(metric.number(found["sd"], more=1), _ends(metric, found["sd_ci"])),
        Cell(metric.number(found["sd_floor"], more=1)),
        Cell(metric.number(found["sd_corrected"], more=1), _ends(metric, found["sd_corrected_ci"])),
        Cell(NONE if is_base else every, tone="muted"),
        Cell(f"{failures['count']} of {failures['n']}", tone="bad" if failures["count"] else ""),
        Cell(NONE if is_base else variant["stability"], tone=tones.get(variant["stability"], "muted")),
    ]


def _ends(metric: Unit, bounds: tuple[float, float] | None) -> str:
    """The interval of an SD, with the SD's decimals."""
    return "" if bounds is None else f"[{', '.join(metric.number(bound, more=1) for bound in bounds)}]"


def _variant_cell(variant: dict[str, Any], index: int) -> Cell:
    if variant["name"] == BASE:
        return Cell(BASE, "untuned")
    strategy = variant["strategy"]
    return Cell(variant["name"], strategy if strategy != variant["name"] else "", colour=index % plots.COLOURS)


def _notes(results: Results, key: str) -> list[str]:
    """Why numbers are missing or special, each reason once."""
    reasons: dict[str, list[str]] = {}
    for variant in results["variants"]:
        found = variant["estimates"][key]
        if found["reason"] and found["reason"] != BASE_REASON:
            reasons.setdefault(found["reason"], []).append(variant["name"])
        if pooling := variant.get("pooling"):
            how = f"{pooling['mode']}{', normalised' if pooling['normalise'] else ''}"
            reasons.setdefault(f"pools tokens by {how}; {pooling['reason']}", []).append(variant["name"])
        if found["sd_corrected_clipped"]:
            clipped = "the estimate of the SD without noise fell below zero by chance and is shown as zero"
            reasons.setdefault(clipped, []).append(variant["name"])
        missing = sum(run["status"] in FAILED and key not in run["scores"] for run in variant["runs"])
        if missing:
            flattered = "failed runs without a score are not in the mean, which flatters it"
            reasons.setdefault(flattered, []).append(variant["name"])
    return [f"{', '.join(names)}: {reason}." for reason, names in reasons.items()]


def _seed_figure(results: Results, task: dict[str, Any]) -> Figure:
    caption = "Each dot is one seed"
    if any(variant["estimates"][f"{task['name']}/{task['metric']}"]["ci"] for variant in results["variants"]):
        caption += ", the line their mean, the band its 95 % interval"
    if any(variant["failures"]["count"] for variant in results["variants"]):
        caption += "; a cross is a failed run"
    drawings = [plots.seed_plot(results, task, narrow) for narrow in (False, True)]
    return Figure(drawings[0], drawings[1], f"{caption}.")


def _metric_table(results: Results, task: dict[str, Any]) -> Table:
    """The other metrics: mean, and under it the interval."""
    others = [metric for metric in task["metrics"] if metric["name"] != task["metric"]]
    arrows = {True: "↑", False: "↓"}
    columns = [Column("other metrics", numeric=False)] + [
        Column(f"{unit(metric['name']).heading} {arrows[metric['higher_is_better']]}", "Mean, and its 95 % interval")
        for metric in others
    ]
    rows = []
    for index, variant in enumerate(results["variants"]):
        row = [_variant_cell(variant, index)]
        for metric in others:
            found, shown = variant["estimates"][f"{task['name']}/{metric['name']}"], unit(metric["name"])
            row.append(Cell(shown.number(found["mean"]), shown.interval(found["ci"]) if found["ci"] else ""))
        rows.append(row)
    return Table(columns, rows)


def _key(task: dict[str, Any]) -> str:
    return f"{task['name']}/{task['metric']}"


def _best_table(results: Results, task: dict[str, Any]) -> Table:
    """What one may hope for who tries some seeds and keeps the best by this metric: an estimate for few draws."""
    metric, numbers = unit(task["metric"]), [number for number in TRIES if number <= len(results["seeds"])]
    columns = [Column("variant", numeric=False)]
    columns += [Column(f"best of {number}" if number > 1 else "one seed") for number in numbers]
    rows = []
    for index, variant in enumerate(results["variants"]):
        found = variant["estimates"][_key(task)]["expected_best"]
        if len(found) > 1:
            cells = [Cell(metric.number(found[number - 1]) if number <= len(found) else NONE) for number in numbers]
            rows.append([_plain(_variant_cell(variant, index)), *cells])
    note = (
        f"{metric.heading}, expected over draws from the seeds at hand, with replacement (Dodge et al., EMNLP 2019). "
        "The best by the test score itself flatters: it says what choosing by luck would seem to gain."
    )
    return Table(columns, rows, [note])


def _run_table(results: Results, task: dict[str, Any]) -> Table:
    columns = [Column("variant", numeric=False), Column("seed"), Column("status", numeric=False)]
    columns += [Column(unit(metric["name"]).heading) for metric in task["metrics"]] + [Column("time")]
    rows = []
    for index, variant in enumerate(results["variants"]):
        for run in variant["runs"]:
            scores = [
                Cell(unit(metric["name"]).number(run["scores"].get(f"{task['name']}/{metric['name']}")))
                for metric in task["metrics"]
            ]
            name = _plain(_variant_cell(variant, index))
            rows.append([name, _seed_cell(run), _status_cell(run), *scores, Cell(seconds(run["seconds"]))])
    return Table(columns, rows)


def _plain(cell: Cell) -> Cell:
    """The cell without its second line, for long tables."""
    return Cell(cell.text, tone=cell.tone, colour=cell.colour)


def _seed_cell(run: dict[str, Any]) -> Cell:
    return Cell(NONE if run["seed"] is None else str(run["seed"]))


def _status_cell(run: dict[str, Any]) -> Cell:
    tones: dict[str, Any] = {"finished": "", "interrupted": "muted"}
    return Cell(run["status"], tone=tones.get(run["status"], "bad"))


def _failure_section(results: Results) -> Section:
    rows = []
    for index, variant in enumerate(results["variants"]):
        for run in variant["runs"]:
            if run["status"] != "finished":
                reason = Cell(run["reason"] or NONE)
                rows.append([_plain(_variant_cell(variant, index)), _seed_cell(run), _status_cell(run), reason])
    title = "Failed and unfinished runs"
    if not rows:
        return Section("failures", title, [Text("None failed.")])
    columns = [Column("variant", numeric=False), Column("seed")]
    columns += [Column("status", numeric=False), Column("why", numeric=False)]
    return Section("failures", title, [Table(columns, rows)])
