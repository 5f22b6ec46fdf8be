"""Decides when a study whose seeds are added until its means are known well enough has enough of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.metrics import unit
from finetune.stats.sequence import confidence_sequence

if TYPE_CHECKING:
    from finetune.recipe import SeedsUntil

LEVEL = 0.95
"""Of the interval whose width decides; the report's too."""


@dataclass(frozen=True)
class Look:
    """The state of a study after some seeds, held against the rule."""

    seeds: int
    widths: dict[str, float | None]
    """By variant, from end to end of its confidence sequence, in points or the metric's own unit; None: none yet."""
    rule: SeedsUntil
    unit: str
    """"points", or empty for the metric's own."""

    @property
    def wide(self) -> list[str]:
        """List the variants whose mean is not known well enough."""
        limit = self.rule.until.ci_width
        return [name for name, width in self.widths.items() if width is None or width > limit]

    @property
    def enough(self) -> bool:
        return not self.wide or self.seeds >= self.rule.at_most

    def __str__(self) -> str:
        if not self.widths:
            return f"after {self.seeds} seeds no run has a score, so no seeds are added"
        widths = ", ".join(f"{name} {'none yet' if w is None else f'{w:.3g}'}" for name, w in self.widths.items())
        said = f"after {self.seeds} seeds, width of the interval{f' in {self.unit}' if self.unit else ''}: {widths}"
        said += f"; at most {self.rule.until.ci_width:g} is wanted"
        if not self.wide:
            return f"{said}, so no seeds are added"
        return f"{said}, and these are all seeds that may be" if self.enough else f"{said}, so seeds are added"


def look(
    rule: SeedsUntil,
    seeds: Collection[int],
    results: Mapping[tuple[str, int], dict[str, Any]],
    task: dict[str, Any],
) -> Look:
    """Compute the confidence sequence of each variant's mean over ``seeds``, and hold it against the rule.

    ``results`` are those of runs by variant and seed, and ``task`` the first held-out task as `data.json` has it. Every
    run that has a score counts, failed ones too. A variant of which no run has one is not waited for: more seeds would
    not make its mean known. Equal scores, which say nothing about the spread, are not narrow.
    """
    key, point = f"{task['name']}/{task['headline']}", unit(task["headline"]).point
    scores: dict[str, list[float]] = {}
    for (name, seed), result in results.items():
        if seed in seeds and result["scores"].get(key) is not None:
            scores.setdefault(name, []).append(result["scores"][key])
    widths: dict[str, float | None] = {}
    for name, values in scores.items():
        interval = confidence_sequence(values, LEVEL)
        widths[name] = None if interval is None else (interval[1] - interval[0]) / (point or 1.0)
    return Look(len(seeds), widths, rule, "points" if point else "")


def first_round(rule: SeedsUntil, begun: int, step: int) -> int:
    """Count the seeds that a study starts with, or goes on with when ``begun`` have begun and ``step`` are added at
    once.

    As many as it would have without an interruption, so that looks come after the same seeds.
    """
    rounds = -(-max(0, begun - rule.at_least) // step)
    return min(rule.at_least + rounds * step, rule.at_most)
