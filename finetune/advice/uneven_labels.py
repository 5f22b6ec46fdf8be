"""The score that decides says something where labels are uneven."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE

SHARE = 0.8


@ADVICE.register
class UnevenLabels(Rule):
    """Compare by a score that counts each label, where one label is most of the data."""

    name = "uneven-labels"
    why = "always saying the commonest label has a high accuracy, and differences on the rare ones do not show"
    source = "Chicco and Jurman 2020, The advantages of the Matthews correlation coefficient"

    def look(self, seen: Seen) -> Iterator[Saw]:
        task, counts = seen.recipe.task, seen.facts("train").get("labels")
        if task.metrics[0] != "accuracy" or not counts or seen.data.task.answer != "label":
            return
        commonest = max(counts, key=lambda label: counts[label])
        share = counts[commonest] / sum(counts.values())
        if share > SHARE:
            found = f"{share:.0%} of the training examples are '{commonest}', and variants are compared by accuracy"
            yield Saw(found, "task.metrics: [macro_f1, mcc, accuracy, nll]")
