"""What is expensive is better than a probe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE

if TYPE_CHECKING:
    from finetune.results.schema import Results


@ADVICE.register
class ProbeAsGood(Rule):
    """Tune more than a head only where that is better than a probe of the frozen model."""

    name = "probe-as-good"
    why = "a probe is solved in seconds, is the same for each seed, and leaves the model as it was"
    source = "this study's own results; Peters, Ruder and Smith 2019, To Tune or Not to Tune?"

    def look(self, seen: Seen) -> Iterator[Saw]:
        earlier = seen.earlier
        if earlier is None or seen.solved or seen.name not in {variant.name for variant in earlier.variants}:
            return
        probes = [each.name for each in earlier.variants if each.strategy == "linear" and each.name != seen.name]
        for probe in [*probes, *(each.name for each in earlier.baselines if each.name.startswith("frozen-"))]:
            if found := _not_better(earlier, seen.name, probe):
                yield Saw(found, "strategy: {type: linear}; or more data, or another rate, and the same question again")
                return


def _not_better(results: Results, name: str, probe: str) -> str:
    """Say that a variant is not better than a ``probe``; empty where it is, or both were not held together."""
    from finetune.metrics import unit
    from finetune.results.ranking import headline_row

    for left, right, sign, lost in ((name, probe, 1, "worse"), (probe, name, -1, "better")):
        row = headline_row(results, left, right)
        if row is None or row.difference is None or row.verdict not in ("undecided", lost):
            continue
        said = "worse than" if row.verdict == lost else "not shown to be better than"
        shown = f"{unit(row.metric).gap(sign * row.difference)} {row.metric}, {len(results.seeds)} seeds"
        return f"{name} is {said} {probe} in the study that there is already ({shown})"
    return ""
