"""The losses of each source of a mixture: while it was learnt, and on held-out examples from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune import stats
from finetune.results.measure import works
from finetune.results.reading import Run, Study
from finetune.results.schema import Results
from finetune.results.variant_scores import distinct

LAST = 0.1
"""Share of the logged steps, the last ones, whose mean is the training loss at the end."""


@dataclass(frozen=True)
class PortionLoss:
    """One source of the training data, under one variant."""

    variant: str
    source: str
    """Its name."""
    weight: float
    examples: int
    """Learnt from in an epoch."""
    training: stats.Estimate
    """Its loss at the end of training, nats a unit of weight (a token, or an example), over seeds."""
    held_out: stats.Estimate
    """The loss of held-out examples from it, in the same unit, over seeds."""
    held_out_examples: int


def portion_losses(study: Study, results: Results) -> list[PortionLoss]:
    """Compute the losses of every source, by variant; empty where the training data have one source."""
    sources = study.data.get("portions", {})
    inside = next((task.name for task in results.tasks if task.role == "in-domain"), None)
    kept = study.examples(inside) if inside else None
    of = None
    if kept is not None and "portion" in kept.column_names and not study.own_rows(str(inside)):
        of = np.asarray(kept["portion"].to_pylist(), object)
    found = []
    for variant, runs in study.variants.items():
        working = distinct(works(runs))
        for name, facts in sources.items():
            own = None if of is None else of == name
            found.append(
                PortionLoss(
                    variant,
                    name,
                    facts["weight"],
                    facts["examples"],
                    _training(working, name, results.level),
                    stats.estimate(_held_out(working, str(inside), own), results.level),
                    0 if own is None else int(own.sum()),
                )
            )
    return found


def _training(runs: Sequence[Run], source: str, level: float) -> stats.Estimate:
    ends = []
    for run in runs:
        logged = [row["portions"].get(source) for row in run.metrics if row.get("portions")]
        said = [value for value in logged[-max(1, round(LAST * len(logged))) :] if value is not None]
        ends += [float(np.mean(said))] if said else []
    return stats.estimate(ends, level)


def _held_out(runs: Sequence[Run], task: str, own: np.ndarray | None) -> list[float]:
    if own is None or not own.any():
        return []
    means = []
    for run in runs:
        table = run.predictions(task, ["loss", "weight"])
        if table is None or table["loss"].null_count:
            continue
        loss, weight = (table[name].to_numpy().astype(float) for name in ("loss", "weight"))
        if len(loss) == len(own):
            means.append(float(loss[own].sum() / weight[own].sum()))
    return means
