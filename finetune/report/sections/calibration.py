"""Calibration: whether a classifier that is 80 % sure is right in 80 % of such cases, by variant and held-out task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from numpy.typing import NDArray

from finetune import stats
from finetune.core.run_dir import BASE
from finetune.report.blocks import Block, Cell, Column, Fold, Panels, Section, Table, Text
from finetune.report.drawing.panels import BOTTOM, LEFT, RIGHT, TOP, Axis, band, frame
from finetune.report.drawing.plots import COLOURS
from finetune.report.drawing.svg import Scale, polyline, tag
from finetune.report.reading import Run, Study
from finetune.report.units import Unit, share
from finetune.stats.calibration import BINS, Bins, by_width, calibration

Results = dict[str, Any]

FEWEST = 10
"""Examples that a seed's bin must have to be drawn: with fewer its accuracy is mostly noise."""


def _error(label: str) -> Unit:
    return Unit(label, scale=100, decimals=1, suffix="%")


MEASURES = {
    "nll": (Unit("NLL"), "Mean negative log-likelihood of the right label, nats: a proper score"),
    "brier": (Unit("Brier"), "Brier score: squared error of the probabilities summed over labels, 0 to 2; proper"),
    "ece": (_error("ECE"), f"Expected calibration error: gap of confidence and accuracy, {BINS} bins of equal width"),
    "ece_noise": (_error("by chance"), "Mean ECE on so many examples were every confidence true"),
    "ece_equal_mass": (_error("ECE, equal mass"), f"ECE over {BINS} bins with equally many examples"),
    "ece_equal_mass_noise": (_error("by chance"), "Its mean on so many examples were every confidence true"),
    "temperature": (Unit("temperature", decimals=2), "By which the logits had to be divided; above 1: overconfident"),
    "nll_scaled": (Unit("NLL, scaled"), "NLL after temperature scaling, each half at the other half's temperature"),
}
"""Unit and explanation of each measure, by its name in results.json; proper scores first."""

METHODS = [
    (
        "Calibration",
        "Each measure is computed for each seed, then estimated over seeds, with an interval like a score's. NLL and "
        "Brier score (Brier 1950) come first because they are proper: no model can improve them by saying what it does "
        f"not believe. ECE (Guo et al. 2017) takes {BINS} bins of equal width of the largest probability, and beside "
        "it as many with equally many examples (Nixon et al. 2019). It depends on the bins and is biased upwards; “by "
        "chance” is what a perfectly calibrated model with these confidences would show on average.",
    ),
    (
        "Temperature",
        "One number by which all logits are divided, fitted to the NLL (Guo et al. 2017). Validation probabilities are "
        "not stored, so it is cross-fitted on the held-out set: each random half is scored at the temperature that "
        "suits the other. The temperature shown is the geometric mean of the two.",
    ),
]
"""(term, sentence) pairs for the section on methods."""

INTRO = (
    "Is a model that is 80 % sure right in 80 % of such cases? Means over seeds with 95 % intervals. Lower is better "
    "in all columns but the temperature's."
)


def calibration_of(
    runs: Sequence[Run], task: str, generator: np.random.Generator, level: float = 0.95
) -> Results | None:
    """What results.json says of one variant's calibration on a task; None where no run has stored probabilities.

    ``generator`` draws the halves for temperature scaling, the same for every run. Runs whose probabilities are not
    finite are left out, and counted.
    """
    halves = int(generator.integers(2**63))
    found, bins, left_out = [], [], 0
    for run in runs:
        stored = _stored(run, task)
        if stored is None:
            continue
        probabilities, right, loss = stored
        if not (np.isfinite(probabilities).all() and np.isfinite(loss).all()):
            left_out += 1
            continue
        found.append(calibration(probabilities, right, np.random.default_rng(halves), loss))
        bins.append(by_width(probabilities.max(axis=1), probabilities.argmax(axis=1) == right))
    if not found:
        return None
    values = {name: [value for each in found if (value := getattr(each, name)) is not None] for name in MEASURES}
    return {
        "bins": BINS,
        "left_out": left_out,
        **{name: asdict(stats.estimate(of_seeds, level)) for name, of_seeds in values.items()},
        "reliability": _reliability(bins),
    }


def _stored(run: Run, task: str) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]] | None:
    """Probabilities (examples, labels), the right label's number and its loss (examples,), in order of examples."""
    table = run.predictions(task, ["probabilities", "loss"])
    if table is None or not len(table) or table["probabilities"].null_count or table["loss"].null_count:
        return None
    reference = run.predictions(task, ["reference"], ["reference"])
    assert reference is not None, "the same file"
    labels = pa.array(json.loads(table.schema.metadata[b"labels"]))
    names = reference["reference"].combine_chunks()
    right = pc.index_in(names.dictionary, value_set=labels).to_numpy()[names.indices.to_numpy()]
    flat = pc.list_flatten(table["probabilities"].combine_chunks()).to_numpy()
    return flat.reshape(len(table), len(labels)).astype(float), right, table["loss"].to_numpy()


def _reliability(bins: list[Bins]) -> list[Results]:
    """Per bin: where it lies, the share of all examples in it, and confidence and accuracy over the seeds that have
    at least :data:`FEWEST` there: mean, lowest and highest."""
    counts, confidence, accuracy = (
        np.stack([getattr(each, name) for each in bins]) for name in ("count", "confidence", "accuracy")
    )
    rows = []
    for number in range(counts.shape[1]):
        enough = counts[:, number] >= FEWEST
        right = accuracy[enough, number]
        rows.append(
            {
                "low": number / counts.shape[1],
                "high": (number + 1) / counts.shape[1],
                "share": float(counts[:, number].sum() / counts.sum()),
                "seeds": int(enough.sum()),
                "confidence": float(confidence[enough, number].mean()) if enough.any() else None,
                "accuracy": float(right.mean()) if enough.any() else None,
                "range": [float(right.min()), float(right.max())] if enough.any() else None,
            }
        )
    return rows


def section(study: Study, results: Results) -> Section | None:
    """Calibration of every variant on the first task that has it, the others folded; None where none has."""
    found = {
        task["name"]: {
            index: variant
            for index, variant in enumerate(results["variants"])
            if (variant.get("calibration") or {}).get(task["name"])
        }
        for task in results["tasks"]
    }
    shown = {task: variants for task, variants in found.items() if variants}
    if not shown:
        return None
    first, *others = shown
    blocks: list[Block] = [Text(INTRO, "muted"), *_blocks(first, shown[first])]
    blocks += [Fold(f"Calibration on {task}", _blocks(task, shown[task])) for task in others]
    return Section("calibration", f"Calibration on {first}", blocks)


def _blocks(task: str, variants: dict[int, Results]) -> list[Block]:
    columns = [Column("variant", numeric=False), *(Column(shown.heading, text) for shown, text in MEASURES.values())]
    rows = [_row(variant, index, variant["calibration"][task]) for index, variant in variants.items()]
    notes = [
        f"{variant['name']}: {number} of {len(variant['runs'])} runs gave probabilities that are not finite: left out."
        for variant in variants.values()
        if (number := variant["calibration"][task]["left_out"])
    ]
    caption = (
        "Accuracy by confidence: mean over seeds, and their range as a band; dashed: perfectly calibrated; columns: "
        f"share of the examples. A seed counts in a bin where it has {FEWEST} examples or more."
    )
    panels = [_panel(variant, index, task) for index, variant in variants.items()]
    return [Table(columns, rows, notes), Panels(panels, caption)]


def _row(variant: Results, index: int, found: Results) -> list[Cell]:
    cells = [Cell(variant["name"], colour=None if variant["name"] == BASE else index % COLOURS)]
    for name, (shown, _) in MEASURES.items():
        interval = found[name]["ci"] if not name.endswith("_noise") else None
        cells.append(Cell(shown.number(found[name]["mean"]), shown.interval(interval) if interval else ""))
    return cells


def _panel(variant: Results, index: int, task: str) -> Markup:
    """Accuracy by confidence: above the diagonal the variant is better than it believes."""
    marks = [(value / 4, f"{25 * value}") for value in range(5)]
    x, y = Axis(Scale(0, 1, LEFT, RIGHT), marks, "confidence, %"), Axis(Scale(0, 1, BOTTOM, TOP), marks, "accuracy, %")
    every = variant["calibration"][task]["reliability"]
    parts = [_column(row, x, y) for row in every if row["share"]]
    parts.append(tag("line", x1=x(0), x2=x(1), y1=y(0), y2=y(1), class_="baseline"))
    rows = [row for row in every if row["seeds"]]
    places = [x(row["confidence"]) for row in rows]
    lows, highs = ([y(row["range"][side]) for row in rows] for side in (0, 1))
    if len(rows) > 1 and lows != highs:
        parts.append(band(places, lows, highs))
    if rows:
        parts.append(polyline([(x(row["confidence"]), y(row["accuracy"])) for row in rows], "curve median"))
    parts += [_bin(row, x, y) for row in rows]
    label = f"Reliability of {variant['name']} on {task}: accuracy by confidence"
    colour = "" if variant["name"] == BASE else f"c{index % COLOURS}"
    return frame(variant["name"], label, x, y, parts, colour)


def _column(row: Results, x: Axis, y: Axis) -> Markup:
    """How many examples are in a bin, a quarter of the panel high at most."""
    height = 0.25 * row["share"] * (BOTTOM - TOP)
    left, right = x(row["low"]), x(row["high"])
    return tag("rect", x=left + 1, y=y(0) - height, width=right - left - 2, height=height, class_="band")


def _bin(row: Results, x: Axis, y: Axis) -> Markup:
    low, high = row["range"]
    text = (
        f"{share(row['confidence'], 1)} sure, right in {share(row['accuracy'], 1)} "
        f"({share(low, 1)} to {share(high, 1)} over {row['seeds']} seeds); {share(row['share'], 1)} of the examples"
    )
    return tag("circle", tag("title", text), cx=x(row["confidence"]), cy=y(row["accuracy"]), r=3, class_="dot")
