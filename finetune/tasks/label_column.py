"""A column of labels of which one is right, as the training examples have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.core.errors import bad_input
from finetune.data.labels import natural
from finetune.tasks.labels import Spelling, refuse_unseen

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.data import Splits


class LabelColumn:
    """The labels of a column that ``splits`` have. Raises InputError for fewer than two, and for held-out ones that no
    training example has."""

    labels: tuple[str, ...]
    """In their natural order."""
    commonest: str
    """Of the training examples; the first in a tie."""

    def __init__(self, column: str, splits: Splits):
        self.column = column
        self.spelling = Spelling.of([*Spelling().counts(splits.train, column)])
        counts = self.counts(splits.train)
        self.labels = tuple(sorted(counts, key=natural))
        self.commonest = max(self.labels, key=lambda label: counts[label])
        if len(self.labels) < 2:
            found = f"column '{column}' has one class only in the training examples: '{self.labels[0]}'"
            raise bad_input("task.label", found, "there have to be two or more; check the column and the split")
        held_out = {"validation": splits.validation, **splits.held_out}
        every = {name: self.counts(data) for name, data in held_out.items() if data is not None}
        refuse_unseen(splits, every, self.labels, "task.label", column)

    @classmethod
    def known(cls, column: str, labels: Sequence[str]) -> LabelColumn:
        """Give the column of a model that has learnt these ``labels``, without the data that it learnt from."""
        found = cls.__new__(cls)
        found.column, found.labels, found.spelling = column, tuple(labels), Spelling.of(labels)
        return found

    def of(self, data: Dataset) -> list[str]:
        """Give each example's label as the training data write it."""
        return [self.spelling(label) for label in data[self.column][:]]

    def counts(self, data: Dataset) -> Counter[str]:
        """Count the examples of each label."""
        return self.spelling.counts(data, self.column)
