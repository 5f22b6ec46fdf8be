"""There are steps enough to learn a task."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE

FEWEST = 100
"""The floor that a recipe has by default (`train.min_steps`)."""


@ADVICE.register
class FewSteps(Rule):
    """Take a hundred steps at least, however few the data are."""

    name = "few-steps"
    why = "with few examples a few epochs are too few steps: what looks like an unlucky seed has only not learnt yet"
    source = "Mosbach et al. 2021, section 6; Zhang et al. 2021, Revisiting Few-sample BERT Fine-tuning, section 6"

    def look(self, seen: Seen) -> Iterator[Saw]:
        (epoch, steps), train = seen.steps, seen.recipe.train
        if seen.solved or steps >= FEWEST:
            return
        found = f"a run takes {steps:,} steps, of {epoch:,} an epoch"
        ceiling = train.max_steps is not None and train.max_steps < FEWEST
        yield Saw(found, "leave train.max_steps out" if ceiling else f"train.min_steps: {FEWEST}, which is the default")
