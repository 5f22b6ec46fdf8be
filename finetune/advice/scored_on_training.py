"""What is scored was not learnt from, nor chosen by."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE


@ADVICE.register
class ScoredOnTraining(Rule):
    """Score on examples that training and the choice of weights have not seen."""

    name = "scored-on-training"
    why = "such scores say what was remembered, or picked, and not what new examples will give"
    source = "Kaufman et al. 2012, Leakage in Data Mining; Elangovan et al. 2021, Memorization vs. Generalization"

    def look(self, seen: Seen) -> Iterator[Saw]:
        leaks, data = seen.data.facts["leaks"], seen.recipe.data
        if leaks["found"] and leaks["action"] == "allow":
            found = f"data.leaks is allow: {leaks['found']:,} of {leaks['checked']:,} held-out examples are learnt from"
            yield Saw(found, "data.leaks: drop, which takes them out of the training examples")
        if both := leaks.get("validation_held_out"):
            found = f"{both:,} validation examples, by which weights are chosen, are among those that are scored"
            yield Saw(found, "validation examples of their own: data.split.validation, or another file")
        learnt = {source.path for at, source in data.sources.items() if at.startswith("data.train")}
        for entry in seen.recipe.evaluate:
            if entry.data.path in learnt and entry.name in leaks.get("not_compared", []):
                found = f"evaluation set '{entry.name}' is read from {entry.data.title_path}, which is learnt from"
                yield Saw(found, "a file of its own, or a split of it")
