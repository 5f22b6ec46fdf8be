"""The rate rises over the first steps."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE


@ADVICE.register
class NoWarmup(Rule):
    """Let the learning rate rise from zero before it falls."""

    name = "no-warmup"
    why = "the first steps of Adam rest on few gradients, and at the full rate they can throw a pretrained model off"
    source = "Mosbach, Andriushchenko and Klakow 2021, On the Stability of Fine-tuning BERT, section 6"

    def look(self, seen: Seen) -> Iterator[Saw]:
        train = seen.recipe.train
        if train.warmup == 0 and not seen.solved and train.optimizer != "prodigy":
            found = (
                f"train.warmup is 0: the first of {seen.steps[1]:,} steps has the whole rate, {train.learning_rate:g}"
            )
            yield Saw(found, "train.warmup: 0.1")
