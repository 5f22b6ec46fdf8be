"""The rear of a report: data, recipe and environment."""

from __future__ import annotations

from typing import Any

from finetune.report.blocks import Block, Cell, Code, Column, Fold, Section, Table, Text
from finetune.report.reading import Study
from finetune.report.units import NONE, count

FEW_LABELS = 12
"""Label counts up to this many stand open on the page."""


def data_section(study: Study) -> Section:
    """Splits, label counts, duplicates, leaks, cut examples."""
    splits = study.data.get("splits", {})
    if not splits:
        return Section("data", "Data", [Text("No data facts were recorded.", "muted")])
    columns = [
        Column("split", numeric=False),
        Column("examples", "And groups, over which errors are computed, where examples belong together"),
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
                Cell(count(split["examples"]), _groups(study, name)),
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
    return Section("data", "Data", blocks)


def _groups(study: Study, task: str) -> str:
    found = study.groups(task)
    return "" if found is None or not len(found) else f"{count(int(found.max()) + 1)} groups"


def _cleaning(study: Study) -> str:
    dropped, leaks = study.data.get("duplicates_dropped"), study.data.get("leaks") or {}
    sentences = [] if dropped is None else [f"{count(dropped)} duplicates were dropped."]
    if leaks:
        done = {"drop": "dropped from training", "allow": "trained on all the same"}.get(leaks["action"], "refused")
        found = f"{count(leaks['found'])} found, and {done}" if leaks["found"] else "none found"
        groups = leaks.get("groups")
        sentences.append(f"{count(leaks['checked'])} held-out examples were looked up in the training data: {found}.")
        if groups:
            both = f"{count(groups['found'])} on both sides, and {done}" if groups["found"] else "none on both sides"
            sentences.append(f"Of the groups of '{groups['column']}', {both}.")
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


REPEAT = (
    "To repeat the study: the recipe above, the data with the fingerprints above, and these versions on such a device. "
    "Other versions and devices round differently, and their runs drift apart."
)

APART = ("format", "packages", "starts", "mixed")
"""Facts of the environment that have a place of their own."""

MIXED = (
    "Not all runs were made on the same, which the recipe allows (`mix`): differences between variants or seeds may "
    "come from it."
)

NAMES = {
    "git": "commit of finetune",
    "dtype": "arithmetic",
    "threads": "threads a process",
    "settings": "environment variables",
    "kind": "kind of device",
    "kernels": "instructions",
}


def environment_section(study: Study) -> Section:
    """Where the study ran, and what from: all that it takes to run it again."""
    facts = {name: value for name, value in study.environment.items() if name not in APART}
    packages = study.environment.get("packages") or {}
    rows = [[Cell(NAMES.get(name, name)), Cell(_in_words(value))] for name, value in facts.items()]
    if packages:
        rows.append([Cell("packages"), Cell(", ".join(f"{name} {version}" for name, version in packages.items()))])
    if not rows:
        return Section("environment", "Environment", [Text("No environment was recorded.", "muted")])
    rows += [[Cell(name), Cell(value)] for name, value in _bases(study).items()]
    table = Table([Column("", numeric=False), Column("", numeric=False)], rows)
    told = [Text(f"{MIXED} {mixed(study)}.")] if mixed(study) else []
    return Section("environment", "Environment", [*told, Text(REPEAT, "muted"), table])


def mixed(study: Study) -> str:
    """What differed between runs of the study, as its recipe allows; empty where nothing did."""
    found = study.environment.get("mixed", {})
    return "; ".join(f"{NAMES.get(name, name)} {' and '.join(map(str, values))}" for name, values in found.items())


def _in_words(value: Any) -> str:
    """One fact of the environment; those with parts in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(part)}" for name, part in value.items()) or NONE
    return NONE if value is None else str(value)


def _bases(study: Study) -> dict[str, str]:
    """The pretrained models by what the recipe calls them, and the weights that were found there."""
    variants = study.resolved["variants"].values()
    sources = dict.fromkeys(str(variant["recipe"].get("model", {}).get("source", "")) for variant in variants)
    weights = dict.fromkeys(str(run.result["base"])[:12] for run in study.runs if run.result.get("base"))
    new = dict.fromkeys(name for run in study.runs for name in run.result.get("new") or [])
    found = {
        "base model": ", ".join(filter(None, sources)),
        "fingerprint of its weights": ", ".join(weights),
        "drawn afresh in each run": ", ".join(new),
    }
    starts: dict[str, list[str]] = {}
    for variant, start in study.environment.get("starts", {}).items():
        parts = {part: start.get(part) for part in ("weights", "configuration", "tokenizer", "template")}
        said = ", ".join(f"{part} {digest[:12]}" for part, digest in parts.items() if digest)
        starts.setdefault(said, []).append(variant)
    found["files of the base model"] = "; ".join(
        f"{said} ({', '.join(variants)})" if len(starts) > 1 else said for said, variants in starts.items()
    )
    return {name: value for name, value in found.items() if value}
