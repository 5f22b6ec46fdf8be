"""A study's trained model in memory, and all that an export says of it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.export.licence import in_words

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.recipe import Recipe
    from finetune.runner.resources import TaskData
    from finetune.tasks.base import Task


@dataclass(frozen=True)
class Trained:
    """A finished run, or a soup of several, ready to be written in a form and to be asked."""

    study: Path
    """The study's folder."""
    variant: str
    seed: int | None
    """None: made of several seeds."""
    folder: Path
    """The folder of the run or soup: what it saved is in its `model/`."""
    model: torch.nn.Module
    """In float32 on the CPU, in evaluation mode, as a strategy has wrapped it: a peft model for adapters. No form may
    change it; :meth:`plain` gives a copy."""
    tokenizer: PreTrainedTokenizerBase
    task: Task
    """Fitted, with its labels and how it pools."""
    recipe: Recipe
    """The variant's."""
    data: TaskData
    """What was learnt from, and what is held out."""
    decision: dict[str, float]
    """What the task has decided by validation examples, such as a threshold; empty: nothing."""
    result: dict[str, Any]
    """The run's result.json."""
    chosen: str
    """Why it is this one, in words."""
    terms: dict[str, Any]
    """The base model's licence, as the metadata of its card say it to the hub; empty: they do not."""
    digests: dict[str, str]
    """Of recipe, data and base weights, by those names."""

    @property
    def licence(self) -> str | None:
        """The base model's licence in words; None: nobody says it."""
        return in_words(self.terms)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the head's outputs; none for tasks without."""
        return self.task.labels

    @property
    def max_length(self) -> int:
        """Tokens that a text may have; longer ones are cut at their end."""
        return min(int(getattr(self.task.options, "max_length", 1 << 30)), int(self.tokenizer.model_max_length))

    @property
    def writes(self) -> bool:
        """Tell whether it continues or completes one text, and does not read texts that are cut where they are long."""
        return self.task.causal or self.task.name == "language"

    @property
    def generates(self) -> bool:
        """Tell whether it answers in words that it generates."""
        return self.task.answer == "text"

    @cached_property
    def ends(self) -> list[int]:
        """The tokens with which generated answers end; none for tasks that generate nothing."""
        task: Any = self.task
        if not self.generates:
            return []
        if not hasattr(task, "end_tokens"):
            return [int(task.end)]
        some = next((encoded.examples for encoded in self.data.shared.values()), self.data.train.examples)
        found: list[int] = sorted(task.end_tokens(some))
        return found

    @property
    def pooled(self) -> bool:
        """Tell whether a head of our own pools the hidden states, which transformers has no class for."""
        return self.task.pooling is not None

    def plain(self) -> PreTrainedModel:
        """Give a copy without a wrapper: adapters are merged into the weights, and all is in float32. Of pooled models
        it is one of `finetune.models.pooled`, of others one of transformers' own classes."""
        from finetune.export.merging import merged_copy

        return merged_copy(deepcopy(self.model))
