"""The tiny examples that stand beside each plug-in's own test, from which the contract batteries make real runs.

`EXAMPLES` in `tests/tasks/test_chat.py` are those of the plug-in in `finetune/tasks/chat.py`, by its name; where it has
several, they are called `plug-in/word`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.core.registry import Registry

Write = Callable[[Path, int], Path]
"""Writes a file of so many different examples into a folder, and gives its path."""


@dataclass(frozen=True)
class Example:
    """Options of a strategy or mitigation that work on models of two blocks."""

    options: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1e-2
    """Learning rate."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Other options of training that go with it."""
    falls: float = 0.95
    """To what share of itself the loss falls at least: few weights beside a frozen random model can do little."""


@dataclass(frozen=True)
class TaskExample:
    """Options of a task, and data from which a tiny model learns something in 16 steps."""

    options: Mapping[str, Any]
    data: Write
    models: tuple[str, ...] = ("decoder",)
    """Those it is tried on, of `encoder`, `decoder`, `encoder-decoder`, `bart` and `masked`; mitigations meet the first
    one alone."""
    pairs: Write | None = None
    """Data with a column `rejected`, for tasks that may have worse answers beside the right ones."""
    alone: bool = False
    """Tried with full tuning alone, where strategies and mitigations would meet nothing new in it."""
    both: bool = False
    """Every model of it is an encoder-decoder, whatever it was made of."""
    far: float = 1e-4
    """By how much runs side by side may differ from runs alone; sums of many tokens' log-likelihoods round more than
    single logits, and what seeks the worst change of an input makes more of it. Another seed differs by 1 %."""
    slow: Mapping[str, float] = field(default_factory=dict)
    """By example of a strategy that can do next to nothing for it in 16 steps: to what share of itself the loss falls
    at least."""
    falls: float = 0.0
    """To what share of itself the loss falls at least, where that is less than the strategy promises: a frozen random
    model may say next to nothing of what is asked."""
    cannot_stack: Mapping[str, str] = field(default_factory=dict)
    """Models of which several cannot be trained side by side when all of them learns, with what is said."""


def examples_beside(registry: Registry, name: str) -> dict[str, Any]:
    """The examples of a plug-in, beside its test; empty where it has none."""
    test = f"tests.{registry.package.rpartition('.')[2]}.test_{registry.file(name).stem}"
    if importlib.util.find_spec(test) is None:
        return {}
    return getattr(importlib.import_module(test), "EXAMPLES", {})


def examples_of(registry: Registry) -> dict[str, Any]:
    """All examples of one kind."""
    return {example: found for name in registry.all() for example, found in examples_beside(registry, name).items()}
