"""Few examples are cut."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE

SHARE = 0.05
WHOLE = ("question-answering", "language")
"""Tasks that show a longer text in parts, and lose nothing of it."""


@ADVICE.register
class Truncation(Rule):
    """Let nearly all examples fit."""

    name = "truncation"
    why = "what is cut is neither read nor learnt, and in a long text the end often says most"
    source = "Sun et al. 2019, How to Fine-Tune BERT for Text Classification?, section 5.3.1"

    def look(self, seen: Seen) -> Iterator[Saw]:
        task = seen.recipe.task
        if task.type in WHOLE or not hasattr(task, "max_length"):
            return
        told = []
        for name, encoded in seen.data.sets.items():
            cut, count = seen.facts(name).get("cut", 0), len(encoded.examples)
            if name not in seen.data.own and cut > SHARE * count:
                told.append(f"{cut:,} of {count:,} examples of {name} ({cut / count:.0%})")
        if told:
            from finetune import models

            room = models.positions_said(seen.data.task.config())
            limit = f"; the model has room for {room:,}" if room else ""
            found = f"task.max_length is {task.max_length}, and cuts {', '.join(told)}"
            yield Saw(found, f"a higher task.max_length{limit}; or shorten what says least, in data.columns")
