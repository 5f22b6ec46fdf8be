"""The rear of a report: cost, data, recipe and environment."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

from finetune.report.blocks import Block, Cell, Code, Column, Fold, Section, Table, Text
from finetune.report.plots import COLOURS
from finetune.report.reading import Run, Study
from finetune.report.units import NONE, count, memory, seconds, share, short_count
from finetune.run_dir import BASE

FEW_LABELS = 12
"""Label counts up to this many stand open on the page."""


def cost_section(study: Study, results: dict[str, Any]) -> Section:
    """Parameters, time and memory of each variant."""
    columns = [
        Column("variant", numeric=False),
        Column("parameters"),
        Column("trained", "Parameters that learn, with their share of all"),
        Column("steps", "Optimizer steps, mean over runs"),
        Column("time a run", "Loading, training and scoring, mean over runs"),
        Column("of it training"),
        Column("tokens/s", "While training, mean over runs"),
        Column("peak memory", "The largest of all runs"),
    ]
    rows = []
    for index, variant in enumerate(results["variants"]):
        runs = study.variants.get(variant["name"], [study.base] if study.base else [])
        rows.append(_cost_row(variant, runs, index))
    return Section("cost", "Size, time and memory", [Table(columns, rows)])


def _cost_row(variant: dict[str, Any], runs: list[Run], index: int) -> list[Cell]:
    size = variant["parameters"] or {}
    total, trained = size.get("total"), size.get("trainable")
    part = share(trained, total) if trained is not None and total else ""
    peaks = [run.result["peak_memory_bytes"] for run in runs if run.result.get("peak_memory_bytes")]
    return [
        Cell(variant["name"], colour=None if variant["name"] == BASE else index % COLOURS),
        Cell(short_count(total)),
        Cell(short_count(trained), part),
        Cell(count(_mean(runs, lambda result: result["training"]["steps"]))),
        Cell(seconds(_mean(runs, lambda result: result["seconds"]))),
        Cell(seconds(_mean(runs, lambda result: result["phases"]["train"]))),
        Cell(count(_mean(runs, lambda result: result["training"]["tokens_per_second"]))),
        Cell(memory(max(peaks, default=None))),
    ]


def _mean(runs: list[Run], get: Callable[[dict[str, Any]], float | None]) -> float | None:
    """Mean of a fact over the runs that have it: the base model has no training, a crashed run perhaps no phases."""
    values = []
    for run in runs:
        try:
            value = get(run.result)
        except (KeyError, TypeError):
            continue
        if value is not None:
            values.append(value)
    return fmean(values) if values else None


def data_section(study: Study) -> Section:
    """Splits, label counts, duplicates, leaks, cut examples."""
    splits = study.data.get("splits", {})
    if not splits:
        return Section("data", "Data", [Text("No data facts were recorded.", "muted")])
    columns = [
        Column("split", numeric=False),
        Column("examples"),
        Column("tokens", "Mean and longest"),
        Column("cut", "Examples longer than the limit, cut at the end"),
        Column("source", numeric=False),
        Column("fingerprint", numeric=False),
    ]
    rows = []
    for name, split in splits.items():
        facts = split.get("facts", {})
        tokens = facts.get("tokens")
        length = f"{tokens['mean']:.0f}, at most {count(tokens['max'])}" if tokens else NONE
        rows.append(
            [
                Cell(name),
                Cell(count(split["examples"])),
                Cell(length),
                Cell(count(facts.get("cut"))),
                Cell(str(split.get("source", NONE))),
                Cell(split["fingerprint"][:12], tone="muted"),
            ]
        )
    blocks: list[Block] = [Table(columns, rows), Text(_cleaning(study))]
    labels = _label_table(splits)
    if labels is not None:
        many = len(labels.rows) > FEW_LABELS
        blocks.append(Fold(f"Examples of each of the {len(labels.rows)} labels", [labels]) if many else labels)
    return Section("data", "Data", blocks)


def _cleaning(study: Study) -> str:
    dropped, leaks = study.data.get("duplicates_dropped"), study.data.get("leaks") or {}
    sentences = [] if dropped is None else [f"{count(dropped)} duplicates were dropped."]
    if leaks:
        done = {"drop": "dropped from training", "allow": "trained on all the same"}.get(leaks["action"], "refused")
        found = f"{count(leaks['found'])} found, and {done}" if leaks["found"] else "none found"
        sentences.append(f"{count(leaks['checked'])} held-out examples were looked up in the training data: {found}.")
    return " ".join(sentences)


def _label_table(splits: dict[str, Any]) -> Table | None:
    counts = {name: split.get("facts", {}).get("labels") for name, split in splits.items()}
    counts = {name: labels for name, labels in counts.items() if labels}
    if not counts:
        return None
    every = list(dict.fromkeys(label for labels in counts.values() for label in labels))
    columns = [Column("label", numeric=False), *(Column(name) for name in counts)]
    rows = [[Cell(str(label)), *(Cell(count(labels.get(label, 0))) for labels in counts.values())] for label in every]
    return Table(columns, rows)


def recipe_section(study: Study) -> Section:
    """The recipe as written, and with every default filled in."""
    blocks: list[Block] = []
    if study.recipe_text:
        blocks.append(Fold("The recipe as it was written", [Code(study.recipe_text)]))
    blocks.append(Fold("The recipe with every default filled in", [Code(study.resolved_text)]))
    return Section("recipe", "Recipe", blocks)


def environment_section(study: Study) -> Section:
    """Where the study ran."""
    facts = {name: value for name, value in study.environment.items() if name not in ("format", "packages")}
    packages = study.environment.get("packages") or {}
    rows = [[Cell(name), Cell(NONE if value is None else str(value))] for name, value in facts.items()]
    if packages:
        rows.append([Cell("packages"), Cell(", ".join(f"{name} {version}" for name, version in packages.items()))])
    if not rows:
        return Section("environment", "Environment", [Text("No environment was recorded.", "muted")])
    return Section("environment", "Environment", [Table([Column("", numeric=False), Column("", numeric=False)], rows)])
