"""The device and software that a study ran on, and the model and data that it ran from."""

from __future__ import annotations

from typing import Any

from finetune.core.numbers import NONE
from finetune.report.blocks import Cell, Column, Section, Table, Text
from finetune.results.reading import Study
from finetune.results.schema import Results

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
    "arithmetic": "arithmetic units",
    "dtype": "arithmetic",
    "dtype_reason": "why this arithmetic",
    "threads": "threads a process",
    "settings": "environment variables",
    "kind": "kind of device",
    "kernels": "instructions",
}


def sections(study: Study, results: Results) -> list[Section]:
    """Write where the study ran, and from what: all that it takes to run it again."""
    facts = {name: value for name, value in study.environment.items() if name not in APART}
    packages = study.environment.get("packages") or {}
    rows = [[Cell(NAMES.get(name, name)), Cell(_in_words(value))] for name, value in facts.items()]
    if packages:
        rows.append([Cell("packages"), Cell(", ".join(f"{name} {version}" for name, version in packages.items()))])
    if not rows:
        return [Section("environment", "Environment", [Text("No environment was recorded.", "muted")])]
    rows += [[Cell(name), Cell(value)] for name, value in _bases(study).items()]
    table = Table([Column("", numeric=False), Column("", numeric=False)], rows)
    told = [Text(f"{MIXED} {mixed(study)}.")] if mixed(study) else []
    return [Section("environment", "Environment", [*told, Text(REPEAT, "muted"), table])]


def mixed(study: Study) -> str:
    """List what differed between runs of the study, as its recipe allows; empty where nothing did."""
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
