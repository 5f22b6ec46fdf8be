"""Decides when a study whose seeds are added until its means are known well enough has enough of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.core.run_dir import FAILED
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
    """By variant, from end to end of the confidence sequence of the mean of its runs that work, over seeds on these
    examples, in points or the metric's own unit; None: none yet."""
    failed: list[str]
    """Variants of which a run has failed: how often is not known until there are all seeds that may be."""
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
        return not (self.wide or self.failed) or self.seeds >= self.rule.at_most

    def __str__(self) -> str:
        if not self.widths:
            return f"after {self.seeds} seeds no run has a score, so no seeds are added"
        widths = ", ".join(f"{name} {'none yet' if w is None else f'{w:.3g}'}" for name, w in self.widths.items())
        said = f"after {self.seeds} seeds, width of the interval{f' in {self.unit}' if self.unit else ''}: {widths}"
        said += f"; at most {self.rule.until.ci_width:g} is wanted"
        if self.failed and not self.wide:
            said += f"; runs of {', '.join(self.failed)} failed, and how often they do wants all seeds"
        if not self.wide and not self.failed:
            return f"{said}, so no seeds are added"
        return f"{said}, and these are all seeds that may be" if self.enough else f"{said}, so seeds are added"


def look(
    rule: SeedsUntil,
    seeds: Collection[int],
    results: Mapping[tuple[str, int], dict[str, Any]],
    task: dict[str, Any],
) -> Look:
    """Compute the confidence sequence of each variant's mean over ``seeds``, and hold it against the rule.

    ``results`` are those of runs by variant and seed, and ``task`` the first held-out task as `data.json` has it. A
    confidence sequence is for scores without collapses, so runs that failed do not count in it; where one did, seeds
    are added as long as they may be, for the failure rate's sake. A variant of which no run has a score is not waited
    for: more seeds would not make its mean known. Equal scores, which say nothing about the spread, are not narrow.
    """
    key, point = f"{task['name']}/{task['headline']}", unit(task["headline"]).point
    scores: dict[str, list[float]] = {}
    failed: dict[str, None] = {}
    for (name, seed), result in results.items():
        if seed not in seeds:
            continue
        if result["status"] in FAILED:
            failed.setdefault(name)
        elif result["scores"].get(key) is not None:
            scores.setdefault(name, []).append(result["scores"][key])
    widths: dict[str, float | None] = {}
    for name, values in scores.items():
        interval = confidence_sequence(values, LEVEL)
        widths[name] = None if interval is None else (interval[1] - interval[0]) / (point or 1.0)
    return Look(len(seeds), widths, [*failed], rule, "points" if point else "")


def first_round(rule: SeedsUntil, begun: int, step: int) -> int:
    """Count the seeds that a study starts with, or goes on with when ``begun`` have begun and ``step`` are added at
    once.

    As many as it would have without an interruption, so that looks come after the same seeds.
    """
    rounds = -(-max(0, begun - rule.at_least) // step)
    return min(rule.at_least + rounds * step, rule.at_most)
