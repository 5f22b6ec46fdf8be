"""What is in a column: its kind, how often values repeat, and how long texts are."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from finetune.data.json_text import parsed

if TYPE_CHECKING:
    from datasets import Dataset

ROWS = 20_000
"""Rows that are looked at; of longer files, every k-th, so that a sorted one is seen whole."""

TIME = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?")
LINK = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+\.\w+")


@dataclass(frozen=True, eq=False)  # two columns are two, whatever they hold
class Column:
    """A column of the file."""

    name: str
    values: Sequence[Any] = field(repr=False)
    """The values of the rows that are looked at, lists and objects as the file has them; None where there is none."""

    @cached_property
    def given(self) -> list[Any]:
        """The values that there are; an empty text is none."""
        return [value for value in self.values if value is not None and value != "" and value == value]

    @cached_property
    def kind(self) -> str:
        """`constant`, `text`, `number` (with fractions), `whole`, `flag`, `time`, or of lists and objects: `messages`,
        `spans`, `answers`, `lists` (of texts), `other`."""
        if not self.given:
            return "constant"
        first = self.given[0]
        if isinstance(first, list | dict) or (isinstance(first, str) and first.lstrip()[:1] in ("[", "{")):
            nested = self._nested()
            if nested or isinstance(first, list | dict):
                return nested or "other"
        if self.distinct == 1:
            return "constant"
        if all(isinstance(value, bool) for value in self.given):
            return "flag"
        if all(isinstance(value, int | float) for value in self.given):
            whole = all(float(value).is_integer() for value in self.given)
            return ("flag" if set(self.given) <= {0, 1} else "whole") if whole else "number"
        if all(isinstance(value, str) for value in self.given):
            return "time" if all(TIME.fullmatch(value.strip()) for value in self.given[:200]) else "text"
        return "time" if hasattr(first, "year") else "other"

    def _nested(self) -> str:
        """Tell what lists and objects hold; empty where that is nothing known, or one of them is something else."""
        values = [parsed(value) for value in self.given]
        if not all(isinstance(value, list | dict) for value in values):
            return ""
        if all(isinstance(value, dict) for value in values):
            return (
                "answers"
                if all({"text", "answer_start"} <= value.keys() for value in values)
                else ("choices" if all({"text", "label"} <= value.keys() for value in values) else "other")
            )
        inner = [item for value in values if isinstance(value, list) for item in value]
        if inner and all(isinstance(item, dict) for item in inner):
            if all({"role", "content"} <= item.keys() or {"from", "value"} <= item.keys() for item in inner):
                return "messages"
            return "spans" if all({"start", "end"} <= item.keys() for item in inner) else "other"
        if inner and all(isinstance(item, list) and len(item) == 3 for item in inner):
            return "spans" if all(isinstance(item[0], int) and isinstance(item[1], int) for item in inner) else "other"
        return "lists" if inner and all(isinstance(item, str) for item in inner) else "other"

    @cached_property
    def lists(self) -> list[Any]:
        """The values as lists and objects."""
        return [parsed(value) for value in self.given]

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each value is there, as text."""
        return Counter(str(value) for value in self.given)

    @cached_property
    def distinct(self) -> int:
        """How many different values there are."""
        return len(self.counts)

    @cached_property
    def unique(self) -> float:
        """Share of the values that no other row has."""
        return sum(count == 1 for count in self.counts.values()) / max(len(self.given), 1)

    @cached_property
    def words(self) -> float:
        """Words of a value, on average."""
        return fmean(len(str(value).split()) for value in self.given) if self.given else 0.0

    @cached_property
    def missing(self) -> int:
        """How many rows have no value."""
        return len(self.values) - len(self.given)

    @property
    def texts(self) -> list[str]:
        """Every row's value as text, empty where there is none."""
        return ["" if value is None or value != value else str(value) for value in self.values]

    @cached_property
    def is_index(self) -> bool:
        """Whether it numbers the rows: whole numbers, each once, that rise throughout, or leave no gap."""
        if self.kind not in ("whole", "flag") or self.unique < 1 or self.missing or len(self.given) < 3:
            return False
        numbers = [int(value) for value in self.given]
        rising = all(one < two for one, two in itertools.pairwise(numbers))
        return rising or max(numbers) - min(numbers) + 1 == len(numbers)

    @cached_property
    def is_id(self) -> bool:
        """Whether it names the rows: texts of one word, or large whole numbers, of which nearly each is there once."""
        if self.kind == "text":
            return self.unique > 0.9 and self.words <= 1.05 and not self.is_link
        return self.kind == "whole" and self.unique > 0.95 and len(self.given) >= 20

    @cached_property
    def is_link(self) -> bool:
        """Whether it holds addresses, of pages or of people."""
        return self.kind == "text" and all(LINK.fullmatch(value.strip()) for value in self.given[:200])

    @cached_property
    def is_prose(self) -> bool:
        """Whether it holds texts that a model can read: some words each, most of them not there twice, or long."""
        if self.kind != "text" or self.is_link:
            return False
        return self.words >= 2 and (self.unique > 0.5 or self.words >= 12 or self.distinct > 0.2 * len(self.given))

    @cached_property
    def is_category(self) -> bool:
        """Whether it sorts the rows: short values, each of them there some times."""
        n = len(self.given)
        if self.kind not in ("text", "whole", "flag") or self.is_link or n < 4:
            return False
        return self.distinct >= 2 and self.words <= 6 and self.distinct <= max(2, n / 3) and self.unique < 0.2


def columns_of(data: Dataset) -> list[Column]:
    """Look at every column of ``data``, but for the row's number."""
    from finetune.data.nested import values_of
    from finetune.data.sources import EXAMPLE

    step = -(-data.num_rows // ROWS)
    rows = data.select(range(0, data.num_rows, step)) if step > 1 else data
    return [Column(name, values_of(rows, name)) for name in rows.column_names if name != EXAMPLE]
