"""What a task is asked once a trained model is used: on data without right answers, without those it learnt from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

STAND_IN = "x"
"""What stands in the place of a right answer that is a text, and is compared with nothing."""


class Used:
    """The part of a task that is asked when a model that was trained for it is used."""

    options: Any
    """What the recipe says of it."""

    def remembered(self) -> dict[str, Any]:
        """Give what `fit` has found that a model in use depends on, beside labels and the model's configuration, in
        JSON's types: what :meth:`recall` is given again."""
        return {}

    def recall(self, known: Mapping[str, Any]) -> None:
        """Take over what `fit` has found, from what :meth:`remembered` and `model_config` gave. Tokenizer and labels
        are there already."""

    def for_use(self, columns: Collection[str]) -> Any:
        """Give the same task for data with these ``columns`` that nobody knows the right answers to."""
        return self

    def stand_ins(self) -> dict[str, Any]:
        """Give a value for each column that has right answers, to stand there while the model is asked."""
        return {}

    def asked(self, data: Dataset, at: str) -> Dataset:
        """Convert ``data``, read at ``at``, to the columns that this task works on, with stand-ins in the place of all
        right answers."""
        found: Dataset = self.converted(with_columns(data, self.stand_ins()), at)  # type: ignore[attr-defined]
        return found

    def answered(self, data: Dataset, texts: Sequence[str]) -> Dataset | None:
        """Put ``texts`` into ``data`` that :meth:`asked` has made, in the place of right answers, so that their
        likelihood can be asked for; None: answers are no texts."""
        return None

    def spelt(self, data: Dataset, texts: Sequence[str]) -> list[str] | None:
        """Write the answers ``texts`` to ``data`` out in its own words, where they only name something in it; None:
        they are words already."""
        return None


def with_columns(data: Dataset, values: Mapping[str, Any]) -> Dataset:
    """``data`` with one value of each of these columns in all rows, whatever was there."""
    return with_lists(data, {name: [value] * data.num_rows for name, value in values.items()})


def with_lists(data: Dataset, columns: Mapping[str, Sequence[Any]]) -> Dataset:
    """``data`` with these columns, whatever was there."""
    import pyarrow as pa

    from finetune.data.sources import as_dataset, as_table

    if not columns:
        return data
    table = as_table(data)
    for name, values in columns.items():
        array = pa.array(values)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, array)
        else:
            table = table.append_column(name, array)
    return as_dataset(table)


def with_options(task: Any, **changed: Any) -> Any:
    """The same task with other options."""
    found = copy(task)
    found.options = task.options.model_copy(update=changed)
    return found
