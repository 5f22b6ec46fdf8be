"""The data that a study ran on."""

from __future__ import annotations

from typing import Any

from finetune.core.numbers import NONE, count
from finetune.metrics.unit import Unit
from finetune.report.blocks import Block, Cell, Column, Fold, Section, Table, Text
from finetune.results.reading import Study
from finetune.results.schema import Results

NUMBER = Unit("number", figures=4)
FEW_LABELS = 12
"""Label counts up to this many stand open on the page."""


def sections(study: Study, results: Results) -> list[Section]:
    """Write the section on splits, label counts, duplicates, leaks and cut examples."""
    splits = study.data.get("splits", {})
    if not splits:
        return [Section("data", "Data", [Text("No data facts were recorded.", "muted")])]
    columns = [
        Column("split", numeric=False),
        Column("examples", "And groups, over which errors are computed, where examples belong together"),
        Column("tokens", "Mean and longest"),
        Column("cut", "Examples longer than max_length, which lost their end"),
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
                Cell(count(split["examples"]), _clusters(study, name)),
                Cell(length),
                Cell(count(facts.get("cut"))),
                Cell(str(split.get("source", NONE))),
                Cell(split["fingerprint"][:12], tone="muted"),
            ]
        )
    blocks: list[Block] = [Table(columns, rows), Text(_cleaning(study))]
    notes = [note for split in splits.values() for note in split.get("facts", {}).get("notes", [])]
    blocks += map(Text, dict.fromkeys(notes))
    labels = _label_table(splits)
    if labels is not None:
        many = len(labels.rows) > FEW_LABELS
        blocks.append(Fold(f"Examples of each of the {len(labels.rows)} labels", [labels]) if many else labels)
    numbers = _number_table(splits)
    return [Section("data", "Data", blocks if numbers is None else [*blocks, numbers])]


def _clusters(study: Study, task: str) -> str:
    found = study.clusters(task)
    return "" if found is None or not len(found) else f"{count(int(found.max()) + 1)} groups"


def _cleaning(study: Study) -> str:
    dropped, leaks = study.data.get("duplicates_dropped"), study.data.get("leaks") or {}
    differing = study.data.get("duplicates_differing")
    others = f", {count(differing)} of them with another answer than the one that was kept" if differing else ""
    sentences = [] if dropped is None else [f"{count(dropped)} duplicates were dropped{others}."]
    if leaks:
        done = {"drop": "dropped from training", "allow": "trained on all the same"}.get(leaks["action"], "refused")
        found = f"{count(leaks['found'])} found, and {done}" if leaks["found"] else "none found"
        shared = leaks.get("groups")
        sentences.append(f"{count(leaks['checked'])} held-out examples were looked up in the training data: {found}.")
        if shared:
            both = f"{count(shared['found'])} on both sides, and {done}" if shared["found"] else "none on both sides"
            sentences.append(f"Of the groups of '{shared['column']}', {both}.")
    return " ".join(sentences)


def _number_table(splits: dict[str, Any]) -> Table | None:
    """Summarise the numbers that are to be predicted, where there are such."""
    found = {name: split.get("facts", {}).get("numbers") for name, split in splits.items()}
    columns = [Column("numbers", numeric=False), Column("mean"), Column("SD"), Column("lowest"), Column("highest")]
    rows = [
        [Cell(name), *(Cell(NUMBER.number(each[key])) for key in ("mean", "sd", "min", "max"))]
        for name, each in found.items()
        if each
    ]
    return Table(columns, rows) if rows else None


def _label_table(splits: dict[str, Any]) -> Table | None:
    counts = {name: split.get("facts", {}).get("labels") for name, split in splits.items()}
    counts = {name: labels for name, labels in counts.items() if labels}
    if not counts:
        return None
    every = list(dict.fromkeys(label for labels in counts.values() for label in labels))
    columns = [Column("label", numeric=False), *(Column(name) for name in counts)]
    rows = [[Cell(str(label)), *(Cell(count(labels.get(label, 0))) for labels in counts.values())] for label in every]
    return Table(columns, rows)
