"""The options of a recipe's `evaluate:` and `scoring:` sections."""

from __future__ import annotations

from pydantic import Field

from finetune.core.options import OPERATIONAL, Options
from finetune.data.options import Source


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
    baseline: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Variant with which every other is compared. Default: all pairs are, which are more, and harder to decide."""
    keep_texts: bool = Field(True, json_schema_extra=OPERATIONAL)
    """Keep the held-out texts in the study's folder, for the report's hardest examples. `false`, for private data: the
    report shows row numbers instead. Answers, wanted and given, are in `predictions/` either way."""
