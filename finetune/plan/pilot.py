"""A pilot study, from which follows for a larger one what moves its differences, and what a run takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import bad_input
from finetune.results.variant_scores import contributions
from finetune.stats.multibootstrap import by_cluster
from finetune.stats.power import Noise

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe
    from finetune.results.reading import Run, Study


@dataclass(frozen=True)
class Pair:
    """Two variants and what moves their difference; from a pilot, or stated."""

    name: str
    noise: Noise
    examples: int | None
    """Held-out ones, or clusters of them; None: not known."""
    choice: bool
    """Whether it is known how much the choice of the examples matters; otherwise it is left out of every number."""
    runs: int | None = None
    """Of the pilot, a side."""
    size: float = 1.0
    """Examples in a cluster."""


@dataclass(frozen=True)
class Cost:
    """The cost of one run of a variant, by the pilot; None: not known."""

    variant: str
    seconds: float | None
    peak_memory_bytes: int | None
    disk_bytes: int | None
    same_recipe: bool
    """Whether the pilot trained it with the same options."""


def pairs(study: Study, examples: int | None = None, baseline: str | None = None) -> list[Pair]:
    """Every two variants of a pilot on its first task's headline metric; its only variant against one like it.

    ``examples`` stands in for the number of held-out examples that the pilot has; ``baseline`` names the variant with
    which alone others will be compared. Raises InputError for a pilot that says nothing about spread.
    """
    task = study.data["tasks"][0]
    key = f"{task['name']}/{task['headline']}"
    scored = {name: [run for run in runs if key in run.scores] for name, runs in study.variants.items()}
    scored = {name: runs for name, runs in scored.items() if len(runs) >= 2}
    if not scored:
        found = f"no variant of {study.folder.path} has two runs with {key}"
        raise bad_input(None, found, "give a pilot with at least two seeds that were scored, better five")
    found_pairs = []
    for left, right in combinations(scored, 2):
        if baseline in scored and baseline not in (left, right):
            continue
        by_seed = {run.seed: run for run in scored[right]}
        both = [(run, by_seed[run.seed]) for run in scored[left] if run.seed in by_seed]
        if len(both) >= 2:
            found_pairs.append(_pair(study, task, both, examples))
    return found_pairs or [_alone(study, task, runs, examples) for runs in scored.values()]


def _pair(study: Study, task: dict[str, Any], both: Sequence[tuple[Run, Run]], examples: int | None) -> Pair:
    """Measure two variants whose runs stand side by side: paired by seed and by example."""
    key, name = f"{task['name']}/{task['headline']}", " - ".join(run.variant for run in both[0])
    left, right = (_matrix(study, task, side) for side in zip(*both, strict=True))
    if left is None or right is None or left.shape != right.shape:
        sd = float(np.std([one.scores[key] - other.scores[key] for one, other in both], ddof=1))
        return Pair(name, Noise(sd), None, False, len(both))
    size = task["examples"] / left.shape[1]
    here = left.shape[1] if examples is None else max(2, round(examples / size))
    return Pair(name, Noise.of_differences(left - right), here, True, len(both), size)


def _alone(study: Study, task: dict[str, Any], runs: Sequence[Run], examples: int | None) -> Pair:
    """One variant against another of the same spread that does not move with it; of examples it says nothing."""
    key, name = f"{task['name']}/{task['headline']}", f"{runs[0].variant} - one like it"
    matrix = _matrix(study, task, runs)
    if matrix is None:
        sd = float(np.std([run.scores[key] for run in runs], ddof=1))
        return Pair(name, Noise.of_sd(sd), None, False, len(runs))
    own, size = Noise.of_differences(matrix), task["examples"] / matrix.shape[1]
    here = matrix.shape[1] if examples is None else max(2, round(examples / size))
    return Pair(name, Noise(2**0.5 * own.seeds, 0.0, 2**0.5 * own.both), here, False, len(runs), size)


def _matrix(study: Study, task: dict[str, Any], runs: Sequence[Run]) -> NDArray[np.float64] | None:
    """Read contributions to the headline metric, (runs, examples); of clusters, where examples belong together.

    None where the metric has none, or where each seed has its own examples.
    """
    scores = [run.scores[f"{task['name']}/{task['headline']}"] for run in runs]
    matrix = None if "split" in study.vary else contributions(runs, task["name"], task["headline"], scores)
    if matrix is None or matrix.shape[1] < 2:
        return None
    labels = study.clusters(task["name"])
    if labels is None or labels.max() == 0:
        return matrix
    return by_cluster(matrix, labels)


def costs(recipe: ResolvedRecipe, study: Study) -> list[Cost]:
    """Estimate what a run of each of the recipe's variants takes, from the pilot's runs of the same name."""
    return [_cost(study, variant.name, variant.digest) for variant in recipe.variants]


def _cost(study: Study, name: str, digest: str) -> Cost:
    runs = [run for run in study.variants.get(name, []) if run.result.get("seconds") is not None]
    peaks = [run.result["peak_memory_bytes"] for run in runs if run.result.get("peak_memory_bytes") is not None]
    disk = [sum(file.stat().st_size for file in run.folder.path.rglob("*") if file.is_file()) for run in runs]
    return Cost(
        variant=name,
        seconds=float(np.mean([run.result["seconds"] for run in runs])) if runs else None,
        peak_memory_bytes=max(peaks, default=None),
        disk_bytes=round(float(np.mean(disk))) if runs else None,
        same_recipe=study.resolved["variants"].get(name, {}).get("digest") == digest,
    )
