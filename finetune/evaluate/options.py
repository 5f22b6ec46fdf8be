"""What a recipe's `evaluate:` and `scoring:` sections may say."""

from __future__ import annotations

from pydantic import Field

from finetune.data.options import Source
from finetune.options import Options


class HeldOut(Options):
    """A held-out task: the recipe's task, scored on other data, for example of another domain."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name in reports and file names."""
    data: Source
    """Where its examples come from."""


class ScoringOptions(Options):
    """How held-out tasks are scored."""

    batch_size: int = Field(32, ge=1)
    """Examples scored at once."""
    base: bool = True
    """Score the untuned base model too, where that means something (it has no newly initialised head)."""
