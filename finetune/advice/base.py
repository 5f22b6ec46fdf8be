"""The base of all rules, and what they are shown of a variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from finetune.core.registry import STRATEGIES

if TYPE_CHECKING:
    from finetune.recipe import Recipe, ResolvedRecipe
    from finetune.results.schema import Results
    from finetune.runner.resources import TaskData


class Saw(NamedTuple):
    """What a rule found in a recipe or its data."""

    found: str
    """With the numbers of this recipe and these data, in words for a person."""
    instead: str
    """What to write instead."""


@dataclass(frozen=True)
class Seen:
    """What rules are shown of one variant."""

    name: str
    """The variant's."""
    recipe: Recipe
    data: TaskData
    parameters: Mapping[str, int]
    """`total`, and how many are `trainable`."""
    study: ResolvedRecipe
    earlier: Results | None = field(default=None, repr=False)
    """What an earlier study of this recipe's name has shown on the same held-out examples."""

    @property
    def solved(self) -> bool:
        """Whether it takes no steps: a probe that is solved."""
        return bool(STRATEGIES.get(self.recipe.strategy.type)(self.recipe.strategy).solves)

    @cached_property
    def examples(self) -> int:
        """How many examples it learns from."""
        return len(self.data.train.examples)

    @cached_property
    def steps(self) -> tuple[int, int]:
        """Optimizer steps of an epoch, and of a run."""
        from finetune.train.batching import steps_of

        return steps_of(self.data.train.examples, self.recipe.train)

    @property
    def compared(self) -> int:
        """How many variants the study compares that differ from seed to seed."""
        kinds = (STRATEGIES.get(each.recipe.strategy.type)(each.recipe.strategy) for each in self.study.variants)
        return sum(not each.solves for each in kinds)

    def facts(self, split: str) -> dict[str, Any]:
        """What is known of a set of examples: tokens, how many were cut, labels."""
        known: dict[str, Any] = self.data.facts["splits"][split]["facts"]
        return known


class Rule:
    """A rule of thumb: its docstring's first line says it."""

    name: ClassVar[str]
    """By which advice is silenced."""
    why: ClassVar[str]
    """What comes of not following it."""
    source: ClassVar[str]
    """Who has shown that, and where."""

    def look(self, seen: Seen) -> Iterator[Saw]:
        """Yield what speaks against a variant; nothing where it follows the rule, or has nothing to do with it."""
        raise NotImplementedError
