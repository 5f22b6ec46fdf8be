"""There are seeds enough for what is asked."""

from __future__ import annotations

import math
from collections.abc import Iterator

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE

TO_COMPARE, TO_SCATTER = 5, 10
"""Seeds from which on a comparison says something, and a spread."""


@ADVICE.register
class FewSeeds(Rule):
    """Run two seeds to have an interval, five to compare, ten or more to speak of spread."""

    name = "few-seeds"
    why = "runs that differ by their seed alone differ by points, and few of them show only what is large"
    source = "Dodge et al. 2020, Fine-Tuning Pretrained Language Models, section 3; Bouthillier et al. 2021"

    def look(self, seen: Seen) -> Iterator[Saw]:
        seeds = len(seen.study.seeds)
        if seen.study.until or not seen.compared or seen.solved:
            return  # a rule adds seeds; and a solved probe is the same for each
        if seen.recipe.mitigations and seeds < TO_SCATTER:
            found = f"{seeds} seeds, and a mitigation whose use is less spread between seeds"
            yield Saw(found, f"seeds: {TO_SCATTER}, better 20")
        elif seeds < 2:
            yield Saw("one seed says nothing of how much runs differ: there is no interval", f"seeds: {TO_COMPARE}")
        elif len(seen.study.variants) > 1 and seeds < TO_COMPARE:
            yield Saw(f"{seeds} seeds to compare {len(seen.study.variants)} variants by: {_visible(seeds)}", _enough())


def _visible(seeds: int) -> str:
    size = _detectable(seeds)
    if not math.isfinite(size):
        return "they show no difference, however large"
    return f"of two, they show a difference of {size:.1f} SDs of a run's score, four times in five"


def _enough() -> str:
    seen = f"{_detectable(TO_COMPARE):.1f} SDs"
    return f"seeds: {TO_COMPARE}, which show {seen}; finetune plan says how many a difference takes"


def _detectable(seeds: int) -> float:
    from finetune.stats import power

    return power.detectable(power.Noise.of_sd(1.0), seeds)
