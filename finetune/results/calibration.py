"""Calibration: whether a classifier that is 80 % sure is right in 80 % of such cases, by variant and evaluation set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import inf

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from finetune import stats
from finetune.results.reading import Run
from finetune.results.schema import CalibrationResult, ReliabilityBin
from finetune.stats.calibration import BINS, Bins, calibration

FEWEST = 10
"""Examples that a seed's bin must have to be drawn: with fewer its accuracy is mostly noise."""

BOUNDS = {
    "nll": (0.0, inf),
    "nll_scaled": (0.0, inf),
    "brier": (0.0, 2.0),
    "ece": (0.0, 1.0),
    "ece_equal_mass": (0.0, 1.0),
}
"""The lowest and the highest value there can be."""

MEASURES = ("nll", "brier", "ece", "ece_noise", "ece_equal_mass", "ece_equal_mass_noise", "temperature", "nll_scaled")


def calibration_of(
    runs: Sequence[Run],
    task: str,
    generator: np.random.Generator,
    level: float = 0.95,
    clusters: ArrayLike | None = None,
    same_rows: bool = True,
) -> CalibrationResult | None:
    """Compute one variant's calibration on an evaluation set; None where no run has stored probabilities.

    Intervals cover new examples, or new ``clusters`` of them, where all runs have the ``same_rows``.
    ``generator`` draws the halves for temperature scaling, the same for every run. Runs whose probabilities are not
    finite are left out, and counted.
    """
    halves = int(generator.integers(2**63))
    found, left_out = [], 0
    for run in runs:
        stored = _stored(run, task)
        if stored is None:
            continue
        probabilities, right, loss = stored
        if not (np.isfinite(probabilities).all() and np.isfinite(loss).all()):
            left_out += 1
            continue
        found.append(calibration(probabilities, right, np.random.default_rng(halves), loss))
    if not found:
        return None
    values = {name: [value for each in found if (value := getattr(each, name)) is not None] for name in MEASURES}
    measures = {}
    for name, of_seeds in values.items():
        matrix = (
            np.stack([each.by_example[name] for each in found]) if same_rows and name in found[0].by_example else None
        )
        measures[name] = stats.estimate(of_seeds, level, matrix, clusters, BOUNDS.get(name))
    return CalibrationResult(BINS, left_out, **measures, reliability=_reliability([each.bins for each in found]))


def _stored(run: Run, task: str) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]] | None:
    """Read probabilities (examples, labels), right labels' numbers and losses (examples,), in order of examples."""
    table = run.predictions(task, ["probabilities", "loss"])
    if table is None or not len(table) or table["probabilities"].null_count or table["loss"].null_count:
        return None
    reference = run.predictions(task, ["reference"], ["reference"])
    assert reference is not None, "the same file"
    labels = pa.array(json.loads(table.schema.metadata[b"labels"]))
    names = reference["reference"].combine_chunks()
    places = pc.index_in(names.dictionary, value_set=labels).fill_null(-1)  # a label that training data lacked
    right = places.to_numpy()[names.indices.to_numpy()]
    flat = pc.list_flatten(table["probabilities"].combine_chunks()).to_numpy()
    return flat.reshape(len(table), len(labels)).astype(float), right, table["loss"].to_numpy()


def _reliability(bins: Sequence[Bins]) -> list[ReliabilityBin]:
    """Give by bin where it lies, the share of all examples in it, and confidence and accuracy over the seeds that have
    at least :data:`FEWEST` there: mean, lowest and highest."""
    counts, confidence, accuracy = (
        np.stack([getattr(each, name) for each in bins]) for name in ("count", "confidence", "accuracy")
    )
    rows = []
    for number in range(counts.shape[1]):
        enough = counts[:, number] >= FEWEST
        right = accuracy[enough, number]
        rows.append(
            ReliabilityBin(
                low=number / counts.shape[1],
                high=(number + 1) / counts.shape[1],
                share=float(counts[:, number].sum() / counts.sum()),
                seeds=int(enough.sum()),
                confidence=float(confidence[enough, number].mean()) if enough.any() else None,
                accuracy=float(right.mean()) if enough.any() else None,
                range=(float(right.min()), float(right.max())) if enough.any() else None,
            )
        )
    return rows
