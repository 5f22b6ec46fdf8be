"""A column of labels, as the training examples have them: which there are, and how they write true and false."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input
from finetune.data.labels import natural, visible

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
        self.column, self.written = column, dict[str, str]()
        counts = self.counts(splits.train)
        spelt = [label for label in counts if label.lower() in ("true", "false")]
        if len({label.lower() for label in spelt}) == len(spelt):  # else they are classes of their own
            self.written = {label.lower(): label for label in spelt}
        self.labels = tuple(sorted(counts, key=natural))
        self.commonest = max(self.labels, key=lambda label: counts[label])
        if len(self.labels) < 2:
            found = f"column '{column}' has one class only in the training examples: '{self.labels[0]}'"
            raise bad_input("task.label", found, "there have to be two or more; check the column and the split")
        for name, data in {"validation": splits.validation, **splits.held_out}.items():
            unseen = sorted(set(self.counts(data)) - set(self.labels)) if data is not None else []
            if unseen:
                raise bad_input(
                    "task.label",
                    f"'{name}' has labels that no training example has: {', '.join(map(visible, unseen[:5]))}",
                    f"training has {', '.join(map(visible, self.labels[:12]))}. Correct the labels, add training "
                    f"examples, or set data.split.stratify: {column}",
                )

    def of(self, data: Dataset) -> list[str]:
        """Give each example's label as the training data write it."""
        return [self._spelt(label) for label in data[self.column]]

    def counts(self, data: Dataset) -> Counter[str]:
        """Count the examples of each label."""
        from finetune.data.sources import as_table

        found = Counter[str]()
        for each in as_table(data)[self.column].value_counts().to_pylist():
            found[self._spelt(each["values"])] += each["counts"]
        return found

    def _spelt(self, label: Any) -> str:
        return self.written.get(str(label).lower(), str(label)) if self.written else str(label)
