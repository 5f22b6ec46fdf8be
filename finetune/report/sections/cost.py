"""The cost of a study: size and latency of variants, time, arithmetic and energy of their runs and of all together."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

from finetune.core.numbers import NONE, count, fixed, listing, memory, scaled, seconds, share, short_count, short_time
from finetune.core.run_dir import read_json
from finetune.report.blocks import Cell, Column, Section, Table, Text
from finetune.report.drawing.plots import COLOURS
from finetune.results.reading import Run, Study
from finetune.results.schema import Results, VariantResult

Result = dict[str, Any]
"""What a run's result.json holds."""

Named = list[tuple[VariantResult, list[Run], int]]
"""Variants, each with its runs and its place."""

JOULES_PER_WH = 3600.0

UNMEASURED = "not measured by the version that ran it"


def sections(study: Study, results: Results) -> list[Section]:
    """Write size and cost of each variant and of the whole study. What an old study has not recorded is left open."""
    named = [(variant, _runs_of(study, variant.name), index) for index, variant in enumerate(results.variants)]
    task = results.tasks[0].name if results.tasks else ""
    size, cost = _size_table(study, named, task), _cost_table(named)
    return [Section("cost", "Size, time, memory and energy", [Text(_whole(study), "muted"), size, cost])]


def _runs_of(study: Study, name: str) -> list[Run]:
    return study.variants.get(name, [study.base] if study.base else [])


def _size_table(study: Study, named: Named, task: str) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("parameters"),
        Column("trained", "Parameters that learn, with their share of all"),
        Column("peak memory", "The largest of all runs, while loading, training and scoring"),
        Column("latency", f"Time that an example of {task} took in scoring, at the batch below it; mean over runs"),
    ]
    rows = []
    for variant, runs, index in named:
        sizes = variant.parameters
        total, trained = (None, None) if sizes is None else (sizes.total, sizes.trainable)
        peaks = [run.result["peak_memory_bytes"] for run in runs if run.result.get("peak_memory_bytes")]
        latency = _mean(runs, lambda result: result["latency"][task])
        batch = _batch_size(study, variant.name) if latency is not None else None
        rows.append(
            [
                _name(variant, index),
                Cell(short_count(total)),
                Cell(short_count(trained), share(trained, total) if trained is not None and total else ""),
                Cell(memory(max(peaks, default=None))),
                Cell(short_time(latency), f"batch {batch}" if batch else ""),
            ]
        )
    unknown = [variant.name for (variant, *_), row in zip(named, rows, strict=True) if row[-1].text == NONE]
    why = "no latency, as none was recorded, or the frozen part of the model was not run again for scoring"
    return Table(columns, rows, [f"{listing(unknown)}: {why}."] if unknown else [])


def _batch_size(study: Study, variant: str) -> int | None:
    recipes = study.resolved["variants"]
    name = variant if variant in recipes else next(iter(recipes))  # the base is scored as the first variant is
    return recipes[name]["recipe"].get("scoring", {}).get("batch_size")


def _cost_table(named: Named) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("steps", "Optimizer steps, mean over runs"),
        Column("time a run", "Loading, training and scoring, mean over runs; of seeds side by side, its share"),
        Column("training", "The part of that time in which it learnt"),
        Column("tokens/s", "While training, mean over runs; of seeds side by side, all together"),
        Column("arithmetic", "Floating-point operations of training, padding included, as the first step took them"),
        Column("of peak", "Model FLOPs utilisation: of what this machine's fastest matrix product reaches"),
        Column("energy", "Of loading, training and scoring, mean over runs; all that ran on the device is counted"),
    ]
    rows, reasons = [], dict[str, list[str]]()
    for variant, runs, index in named:
        used = _mean(runs, lambda result: result["training"]["utilisation"])
        rows.append(
            [
                _name(variant, index),
                Cell(count(_mean(runs, lambda result: result["training"]["steps"]))),
                Cell(seconds(_mean(runs, lambda result: result["seconds"]))),
                Cell(seconds(_mean(runs, lambda result: result["phases"]["train"]))),
                Cell(count(_mean(runs, lambda result: result["training"]["tokens_per_second"]))),
                Cell(scaled(_mean(runs, lambda result: result["training"]["flops"]), "FLOP")),
                Cell(share(used, 1) if used is not None else NONE),
                Cell(scaled(_mean(runs, lambda result: result["energy"]["joules"]), "J")),
            ]
        )
        for run in runs:
            if (why := _unmeasured(run.result)) is not None:
                reasons.setdefault(why, []).append(variant.name)
    notes = [f"{listing(list(dict.fromkeys(names)))}: no energy: {why}." for why, names in reasons.items()]
    return Table(columns, rows, notes)


def _unmeasured(result: Result) -> str | None:
    """Tell why the energy of a run that ended is not known; None where it is."""
    if result.get("seconds") is None:
        return None
    energy = result.get("energy")
    return UNMEASURED if energy is None else energy["source"] if energy["joules"] is None else None


def _name(variant: VariantResult, index: int) -> Cell:
    return Cell(variant.name, colour=None if variant.is_base else index % COLOURS)


def _mean(runs: list[Run], get: Callable[[Result], float | None]) -> float | None:
    """Mean of a fact over the runs that have it: the base model has no training, a crashed run perhaps no phases."""
    values = [value for run in runs if (value := _maybe(run.result, get)) is not None]
    return fmean(values) if values else None


def _maybe(result: Result, get: Callable[[Result], float | None]) -> float | None:
    try:
        return get(result)
    except (KeyError, TypeError):
        return None


def _work(hours: float, unit: str) -> str:
    """Write device-hours, or minutes or seconds of them where they are few."""
    word, number = ("hours", hours) if hours >= 1 else ("minutes", 60 * hours)
    word, number = (word, number) if number >= 1 else ("seconds", 3600 * hours)
    return f"{fixed(number, 1)} {unit.replace('hours', word)}"


def _seconds(result: Result) -> float | None:
    """Read the seconds that a run took, or the training of a stage; None where they are not known."""
    return result.get("seconds") or _maybe(result, lambda each: each["training"]["seconds"])


def _every(study: Study) -> dict[str, list[Result]]:
    """Collect the results of all that the study's models have cost, by what it was."""
    return {
        "runs": [run.result for run in study.runs],
        "base model": [study.base.result] if study.base else [],
        "combinations": [run.result for runs in study.combined.values() for run in runs],
        "stages": [read_json(path) for path in sorted(study.folder.stages.glob("*/result.json"))],
    }


def spent(study: Study) -> float:
    """Sum up the seconds of everything in the study's folder but cheap baselines."""
    return sum(_seconds(result) or 0.0 for results in _every(study).values() for result in results)


def _whole(study: Study) -> str:
    """Sum up device-hours, arithmetic and energy of everything in the study's folder, in a sentence."""
    parts = _every(study)
    every = [result for results in parts.values() for result in results]
    timed = [result for result in every if _seconds(result) is not None]
    where = study.environment
    device, processes = str(where.get("device", "")), where.get("processes") or 1
    workers, unit = processes, "GPU-hours"
    if not device.startswith("cuda"):
        workers, unit = processes * (where.get("threads") or 1), "core-hours" if where.get("threads") else "hours"
    hours = spent(study) * workers / 3600
    said = [_work(hours, unit)]
    flops = [value for result in timed if (value := _maybe(result, lambda each: each["training"]["flops"])) is not None]
    joules = [value for result in timed if (value := _maybe(result, lambda each: each["energy"]["joules"])) is not None]
    said += [f"{scaled(sum(flops), 'FLOP')} of training"] if flops else []
    said += [scaled(sum(joules) / JOULES_PER_WH, "Wh")] if joules else []
    words = f"The study took {listing(said)} on {device or 'a device that was not recorded'}"
    more = [name for name, results in parts.items() if results and name != "runs"]
    words += f": {count(len(study.runs))} runs" + (f", with {listing(more)}" if more else "")
    missing = [] if len(joules) in (0, len(timed)) else [f"energy was read in {len(joules)} of {len(timed)}"]
    missing += [f"{len(every) - len(timed)} without a time are not in it"] if len(timed) < len(every) else []
    return "; ".join([words, *missing]) + "."
