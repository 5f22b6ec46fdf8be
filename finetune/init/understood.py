"""What a file was understood to be for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Understood:
    """A task, where its columns are, and why."""

    task: str
    """`type` of the recipe's task."""
    options: dict[str, Any]
    """The task's options that name columns, or say what is in them."""
    why: str
    """Why it is this task, in words for a person."""
    inputs: tuple[str, ...] = ()
    """The file's columns that are read."""
    answer: tuple[str, ...] = ()
    """The file's columns that say what is right."""
    made: dict[str, str] = field(default_factory=dict)
    """New columns, as `data.train.columns` has them."""
    preference: bool = False
    """Whether it learns from a better and a worse answer."""
    left: dict[str, str] = field(default_factory=dict)
    """Columns that are not read although they might be, and why."""

    @property
    def used(self) -> set[str]:
        """The file's columns that are read or learnt."""
        return {*self.inputs, *self.answer}
