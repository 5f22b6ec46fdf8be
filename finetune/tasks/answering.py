"""How answers are drawn, where they end, and how the part that counts is found in them: the chat task's options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from finetune.core.errors import bad_input
from finetune.core.options import Options
from finetune.core.randomness import Streams

if TYPE_CHECKING:
    import numpy as np

DRAW = 64 - 11
"""Bits of a random number that fit into a float."""


class SamplingOptions(Options):
    """How the next token of an answer is drawn. What is drawn depends on the example and on `seed` alone: not on the
    run's seed, nor on what shares a batch."""

    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    """What log-probabilities are divided by: below 1, likely tokens become likelier. 1 is the model itself."""
    top_k: int | None = Field(None, ge=1)
    """Draw from so many likeliest tokens. Default: from all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the fewest likeliest tokens that have this probability together (Holtzman et al. 2020, section 3.1)."""
    seed: int = Field(0, ge=0)
    """Another seed draws other answers; all runs and the untuned model have the same one, so that less of their
    differences is chance."""

    def draws(self, numbers: Iterable[int], count: int) -> np.ndarray:
        """Draw ``count`` numbers from 0 up to 1 for each example, by its number: (examples, count), float64."""
        import numpy as np

        streams = Streams(self.seed)
        bits = [np.random.PCG64(streams.seed_of("noise", number)).random_raw(count) for number in numbers]
        return (np.stack(bits) >> np.uint64(64 - DRAW)) / 2.0**DRAW


class AnswerOptions(Options):
    """Which part of a text is the answer."""

    pattern: str = Field(min_length=1)
    """Regular expression, Python's: what it matches last is the answer, or what its first group matches, where it has
    groups. `#### (-?[\\d,.]+)` finds the number that ends a solution of GSM8K."""
    numbers: bool = False
    """Compare as numbers: without thousands' commas, currency signs, or a full stop behind, so that `$1,250.00` is
    `1250`. What is no number is no answer."""

    @model_validator(mode="after")
    def _is_a_pattern(self) -> AnswerOptions:
        try:
            found = re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}") from error
        if found.match(""):
            raise ValueError("pattern matches an empty text, and so the end of every answer; let it match something")
        return self

    def find(self, text: str) -> str:
        """Find the answer in ``text``; empty where there is none."""
        matches = list(re.finditer(self.pattern, text))
        if not matches:
            return ""
        groups = [group for group in matches[-1].groups() if group is not None]
        found = (groups or [matches[-1].group()])[0].strip()
        return as_number(found) if self.numbers else found


def as_number(text: str) -> str:
    """Write the number in ``text`` in one way: `1250` for `$1,250.00`; empty where it is none."""
    plain = re.sub(r"[,$€£\s]", "", text).removesuffix(".")
    try:
        number = Decimal(plain)
    except InvalidOperation:
        return ""
    if not number.is_finite():
        return ""
    return format(number.normalize() + 0, "f")  # there is no zero below zero


def refuse_unmatched(reference: str, answer: AnswerOptions, where: str) -> None:
    """Refuse a reference in which there is no answer, and say ``where`` its row stands."""
    if answer.find(reference):
        return
    found = f"{where}: nothing in the right answer matches {answer.pattern!r}"
    if answer.numbers and re.search(answer.pattern, reference):
        found = f"{where}: what {answer.pattern!r} finds in the right answer is no number"
    raise bad_input("task.answer.pattern", f"{found}: {reference!r:.80}", "change the pattern, or take this row out")


def cut_at(text: str, stops: Sequence[str]) -> str:
    """Cut ``text`` before the first of ``stops`` in it, and the white space before that."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)].rstrip() if places else text


def tokens_near(stops: Sequence[str]) -> int:
    """Count the last tokens in which any of ``stops`` can be that has just been completed: a token has a byte at least,
    and some white space may follow."""
    return max(len(stop.encode()) for stop in stops) + 8
