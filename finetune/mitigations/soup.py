"""Averages the weights of a variant's seeds: uniform and greedy soups (Wortsman et al. 2022, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation, Runs


class SoupOptions(Options):
    """Which soups to make of the seeds. Adding one to a study that is finished trains nothing again."""

    identifies: ClassVar[bool] = False

    type: Literal["soup"]
    method: Literal["uniform", "greedy", "both"] = "uniform"
    """`uniform`: the mean of all seeds. `greedy`: from the best seed on the validation split down, each one that does
    not lower the mean's validation score (`train.select`) is added. `both`: one of each."""


@MITIGATIONS.register
class Soup(Mitigation):
    """Averages the trained weights of the finished seeds into one model, which costs no more to use than one seed.

    Source: Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy
    without increasing inference time", section 2. What adapters add is averaged as the weights that it amounts to (the
    mean of B A), since the mean of the factors A and B is another model.

    Not for: seeds that end in different basins, whose mean is worse than each of them. The paper averages models from
    one initialisation: where each seed draws a head of its own, take `init` out of `vary`, or use an ensemble. A soup
    is one number: it says nothing about the spread over seeds.
    """

    name: ClassVar[str] = "soup"
    Options = SoupOptions
    combines = "weights"

    options: SoupOptions

    @property
    def makes(self) -> tuple[str, ...]:
        methods = ("uniform", "greedy") if self.options.method == "both" else (self.options.method,)
        return tuple(f"soup-{method}" for method in methods)

    @property
    def validates(self) -> bool:
        return self.options.method != "uniform"

    def choose(self, made: str, runs: Runs) -> Sequence[int]:
        return greedy(runs.seeds, runs.validated) if made == "soup-greedy" else runs.seeds


def greedy(seeds: Sequence[int], validated: Callable[[Sequence[int]], float]) -> list[int]:
    """Choose seeds by the paper's recipe 1: in order of their own scores, those that do not lower the mean's.

    ``validated`` scores the mean of some seeds, more is better. The first is the best one alone, so that what comes out
    is never worse than it. Of equally good seeds the earlier is tried first.
    """
    ranked = sorted(seeds, key=lambda seed: -validated([seed]))
    kept = ranked[:1]
    for seed in ranked[1:]:
        if validated([*kept, seed]) >= validated(kept):
            kept.append(seed)
    return kept
