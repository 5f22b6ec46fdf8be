"""Puts a report together: which blocks it has, top to bottom, with every number written out once."""

from __future__ import annotations

from typing import Any

from finetune.report import appendix, combined, methods, plots
from finetune.report.blocks import Block, Cell, Column, Document, Figure, Fold, Panels, Section, Table, Text
from finetune.report.reading import Study
from finetune.report.results import BASE_REASON
from finetune.report.units import MINUS, NONE, count, p_value, seconds, unit
from finetune.report.verdict import verdict_of
from finetune.run_dir import BASE, FAILED

Results = dict[str, Any]


def document(study: Study, results: Results) -> Document:
    """The whole report."""
    sections = [
        *(_task_section(results, task) for task in results["tasks"]),
        _comparison_section(results),
        *combined.sections(results),
        _curve_section(study),
        _failure_section(results),
        appendix.cost_section(study, results),
        appendix.data_section(study),
        appendix.recipe_section(study),
        appendix.environment_section(study),
        methods.method_section(study),
    ]
    return Document(results["study"], verdict_of(results), _facts(study, results), sections)


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
        ("device", str(study.environment.get("device", NONE))),
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
    blocks.append(Fold(f"Every run on {task['name']}", [_run_table(results, task)]))
    return Section(f"task-{task['name']}", f"Scores on {task['name']}", blocks)


def _score_table(results: Results, task: dict[str, Any]) -> Table:
    metric, key = unit(task["metric"]), f"{task['name']}/{task['metric']}"
    columns = [
        Column("variant", numeric=False),
        Column(metric.heading, "Mean over seeds"),
        Column("95 % interval", "Student t interval of the mean over seeds"),
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
        Cell(metric.number(found["sd"], more=1)),
        Cell(metric.number(found["sd_floor"], more=1)),
        Cell(metric.number(found["sd_corrected"], more=1)),
        Cell(NONE if is_base else every, tone="muted"),
        Cell(f"{failures['count']} of {failures['n']}", tone="bad" if failures["count"] else ""),
        Cell(NONE if is_base else variant["stability"], tone=tones.get(variant["stability"], "muted")),
    ]


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


def _comparison_section(results: Results) -> Section:
    headline, other = (
        [row for row in results["comparisons"] if row["family"] == family] for family in ("headline", "other")
    )
    if not headline:
        return Section("differences", "Differences", [Text("There is no second variant to compare with.", "muted")])
    intro = (
        "Left minus right, paired by seed. A difference counts as decided when its interval excludes zero "
        "and its p-value, corrected for all comparisons of the table, is below 0.05."
    )
    blocks: list[Block] = [Text(intro, "muted"), _comparison_table(headline)]
    if other:
        blocks.append(Fold("Differences on the other metrics", [_comparison_table(other)]))
    return Section("differences", "Differences", blocks)


def _comparison_table(rows: list[dict[str, Any]]) -> Table:
    columns = [
        Column("left against right", numeric=False),
        Column("metric", numeric=False),
        Column("difference", "Left minus right, mean over common seeds"),
        Column("95 % interval", "Student t interval of the mean difference"),
        Column("p (Holm)", "Two-sided t-test, corrected by Holm for all comparisons of this table"),
        Column("P(left wins)", "Chance that a random seed of the left beats a random seed of the right; ties half"),
        Column("verdict", numeric=False),
    ]
    tones: dict[str, Any] = {"better": "good", "worse": "bad", "undecided": "muted"}
    cells: list[list[Cell]] = []
    notes: dict[str, list[str]] = {}
    for row in rows:
        pair = f"{row['left']} {MINUS} {row['right']}"
        metric, improvement = unit(row["metric"]), row["probability_of_improvement"]
        said = "undecided" if row["verdict"] == "undecided" else f"{row['left']} is {row['verdict']}"
        cells.append(
            [
                Cell(pair),
                Cell(f"{metric.label} on {row['task']}"),
                Cell(metric.gap(row["difference"])),
                Cell(metric.interval(row["ci"], signed=True)),
                Cell(p_value(row["p_value_adjusted"])),
                Cell(NONE if improvement is None else f"{improvement:.2f}"),
                Cell(said, tone=tones[row["verdict"]]),
            ]
        )
        if row["reason"]:
            notes.setdefault(row["reason"], []).append(pair)
    return Table(columns, cells, [f"{', '.join(dict.fromkeys(names))}: {reason}." for reason, names in notes.items()])


def _curve_section(study: Study) -> Section:
    panels = plots.curve_panels({name: runs for name, runs in study.variants.items() if runs})
    if not panels:
        return Section("curves", "Training curves", [Text("No training step has been recorded.", "muted")])
    caption = "Loss by step, one line per seed. Solid: training; dashed: validation; a cross: a diverged run."
    return Section("curves", "Training curves", [Panels(panels, caption)])


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
