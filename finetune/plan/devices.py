"""What a study would take on several devices: layout, time, memory, energy and price, by the runs of a pilot."""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input
from finetune.launch.placement import Layout, lay_out

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe
    from finetune.results.reading import Study

Range = tuple[float, float, float]
"""Lowest, expected and highest."""

SCALING = 0.75
"""Of a CPU's cores: with k times as many a run is expected to take k**-0.75 of the time; the range goes from no gain to
all of it."""


@dataclass(frozen=True)
class Forecast:
    """What a study takes on some devices."""

    layout: Layout
    seconds: Range
    """From the first run to the last, without the seconds in which processes start."""
    peak_memory_bytes: tuple[int, int] | None
    """On each device: of the smallest and of the largest run of the pilot; None: not known."""
    joules: Range | None
    """Of all devices; None: not measured in the pilot."""
    price: Range | None
    """In the unit of an hour's price; None: not asked for."""

    def content(self) -> dict[str, Any]:
        """Give all of it as plain JSON."""
        return {**vars(self), "layout": {**vars(self.layout), "said": str(self.layout)}}


def forecast(recipe: ResolvedRecipe, study: Study, devices: int, price: float | None) -> Forecast:
    """Forecast what ``recipe`` takes on so many ``devices`` like those of the pilot ``study``, at the ``price`` of a
    device's hour. Raises InputError where the pilot has no run of a variant, or the model would be split, which changes
    what a run takes."""
    at = "--devices"
    if any(variant.recipe.compute.shard for variant in recipe.variants):
        raise bad_input(at, "is for runs as the pilot did them, and here compute.shard splits each", "leave it out")
    of = {name: [run.result for run in runs] for name, runs in study.variants.items()}
    of = {name: [one for one in results if one.get("seconds") is not None] for name, results in of.items()}
    if missing := [variant.name for variant in recipe.variants if not of.get(variant.name)]:
        raise bad_input(at, f"needs a pilot with a run of {missing[0]}", "run that with a seed, and give it as --pilot")
    seeds = len(recipe.seeds)
    layout = lay_out(seeds * len(recipe.variants), ["cpu"] * devices, shard=False)
    spent = [[float(one["seconds"]) for one in of[variant.name]] for variant in recipe.variants]
    low, mid, high = (
        makespan([choose(own) for own in spent for _ in range(seeds)], len(layout.groups))
        for choose in (min, _mean, max)
    )
    fewer = _fewer_cores(study, devices)
    seconds = (low, mid * fewer**SCALING, high * fewer)
    used = [one for variant in recipe.variants for one in of[variant.name]]
    peaks = [one["peak_memory_bytes"] for one in used if one.get("peak_memory_bytes")]
    hour = None if price is None else devices * price / 3600
    costs = None if hour is None else (seconds[0] * hour, seconds[1] * hour, seconds[2] * hour)
    return Forecast(layout, seconds, (min(peaks), max(peaks)) if peaks else None, _joules(recipe, of, seeds), costs)


def makespan(runs: Sequence[float], groups: int) -> float:
    """Compute when the last of ``runs``, in seconds each, ends, if the longest begin first and each goes to the group
    that is free first: at most 4/3 of the shortest time there is (Graham 1969)."""
    free = [0.0] * groups
    for run in sorted(runs, reverse=True):
        heapq.heapreplace(free, free[0] + run)
    return max(free)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _fewer_cores(study: Study, devices: int) -> float:
    """Compute by what factor a CPU's process has fewer cores than the pilot's had; a GPU is whole."""
    if study.environment.get("kind") != "cpu":
        return 1.0
    own = max(len(os.sched_getaffinity(0)) // devices, 1)
    return max(float(study.environment.get("threads", own)) / own, 1.0)


def _joules(recipe: ResolvedRecipe, of: dict[str, list[dict[str, Any]]], seeds: int) -> Range | None:
    known = [
        [one["energy"]["joules"] for one in of[variant.name] if (one.get("energy") or {}).get("joules") is not None]
        for variant in recipe.variants
    ]
    if not all(known):
        return None
    low, mid, high = (seeds * sum(map(choose, known)) for choose in (min, _mean, max))
    return low, mid, high
