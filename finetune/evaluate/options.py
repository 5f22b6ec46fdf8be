"""The options of a recipe's `scoring:` and `baselines:` sections."""

from __future__ import annotations

from pydantic import Field, model_validator

from finetune.core.options import OPERATIONAL, Options


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


class BaselineOptions(Options):
    """Cheap ways to answer the same held-out examples, without any tuning: for a label, the commonest one, logistic
    regression on words, and the nearest centroid and logistic regression on the frozen model's features; for a number,
    the mean, and ridge regression on words and on these features; for an answer in words, its prompt's first sentence.
    They are computed once for a study, whatever its seeds."""

    enabled: bool = True
    """Compute them."""
    limit: int = Field(2_000_000, ge=0)
    """Tokens, of training and held-out examples together, up to which those on features are computed: the model reads
    each example once, which takes about 2 FLOP for each token and parameter. Those that learn from words alone, which
    keep all of them in memory, are computed up to ten times as many. It is no number of seconds, so that what a report
    shows does not depend on the machine. The default is ours: a third of what an epoch on 30,000 texts of 64 tokens
    takes."""
    shots: int = Field(0, ge=0)
    """Let the untuned model answer too after so many training examples, the same for all questions, for tasks that
    answer in words. Default: not, as it takes as long as scoring a run, or longer."""

    @model_validator(mode="after")
    def _shots_of_what_is_computed(self) -> BaselineOptions:
        if self.shots and not self.enabled:
            raise ValueError("shots asks for a baseline, and enabled is false; leave one of the two out")
        return self
