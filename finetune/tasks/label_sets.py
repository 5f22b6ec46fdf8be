"""The set of labels of each row, as a data file has it: a list, a text with separators, or columns of 0 and 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input
from finetune.data.json_text import by_python, listed
from finetune.data.labels import visible

if TYPE_CHECKING:
    from datasets import Dataset

OPTION = "task.labels"


class _Bad(Exception):
    """What is wrong with a row's labels, and what to do about it."""

    def __init__(self, found: str, advice: str = "correct the file, or take the row out of it"):
        super().__init__(found)
        self.found, self.advice = found, advice


@dataclass(frozen=True)
class SetColumns:
    """Where a row's labels are."""

    columns: str | Sequence[str]
    """The column with the set; or columns of 0 and 1, whose names are the labels."""
    separator: str | None = None
    """What stands between labels in one text."""

    def check(self, data: Dataset, at: str) -> None:
        """Raise :class:`InputError`, with the row, where ``data``, read at recipe path ``at``, holds something else."""
        from finetune.data.columns import require_column
        from finetune.data.rows import rows_of

        for column in self._names:
            require_column(data, column, at, OPTION)
        for row, values in enumerate(self._rows(data)):
            try:
                self._labels(values)
            except _Bad as error:
                number = rows_of(data)[row] if "example" in data.column_names else row + 1
                raise bad_input(OPTION, f"{at}: {error.found} in row {number}", error.advice) from error

    def read(self, data: Dataset) -> list[tuple[str, ...]]:
        """Give the labels of each row, each once, in the order in which they are written."""
        return [self._labels(values) for values in self._rows(data)]

    @property
    def _names(self) -> Sequence[str]:
        return [self.columns] if isinstance(self.columns, str) else self.columns

    def _rows(self, data: Dataset) -> Iterator[tuple[Any, ...]]:
        """Give what each row has in the columns."""
        from finetune.data.nested import plain_values
        from finetune.data.sources import as_table

        table = as_table(data.select_columns([name for name in data.column_names if name in self._names]))
        return zip(*(plain_values(table[name]) for name in self._names), strict=True)

    def _labels(self, values: Sequence[Any]) -> tuple[str, ...]:
        """Read the labels in a row's ``values``. Raises _Bad where they are none."""
        return self._of_one(values[0]) if isinstance(self.columns, str) else self._marked(values)

    def _of_one(self, value: Any) -> tuple[str, ...]:
        """Read the labels in the value of one column."""
        column, value = f"column '{self.columns}'", listed(value)
        if isinstance(value, list):
            return tuple(dict.fromkeys(_label(each, column) for each in value))
        if by_python(value):
            raise _Bad(f"{column} holds {value}, a list as Python writes it,", 'write JSON in the file: ["a", "b"]')
        if self.separator is None:
            found = f"{column} has no label" if _missing(value) else f"{column} holds '{value}', no list of labels,"
            advice = (
                'write lists, in csv as ["a", "b"]; name what stands between the labels of a text in task.separator'
            )
            raise _Bad(found, advice)
        if value is None or (isinstance(value, str) and not value.strip()):
            return ()  # as an empty cell of a csv file is
        parts = [part.strip() for part in str(value).split(self.separator)]
        return tuple(dict.fromkeys(_label(value if len(parts) == 1 else part, column) for part in parts))

    def _marked(self, row: Sequence[Any]) -> tuple[str, ...]:
        """Name the columns that are 1 in a row."""
        for name, value in zip(self._names, row, strict=True):
            if _missing(value):
                raise _Bad(f"column '{name}' has no value", "write 0 where a label does not apply")
            if not isinstance(value, bool | int | float) or value not in (0, 1):
                raise _Bad(
                    f"column '{name}' holds '{value}', neither 0 nor 1,", "write 1 where the label applies, else 0"
                )
        return tuple(name for name, value in zip(self._names, row, strict=True) if value)


def _missing(value: Any) -> bool:
    return value is None or value != value  # NaN


def _label(value: Any, column: str) -> str:
    """Write a label as text."""
    if _missing(value) or (isinstance(value, str) and value.strip().lower() == "nan"):
        raise _Bad(f"{column} has a missing label")
    if isinstance(value, float | list | dict):
        raise _Bad(f"{column} has the label {value}", "labels are text, whole numbers, or true and false")
    text = str(value).strip()
    if not text:
        raise _Bad(f"{column} has an empty label")
    return text


def in_words(labels: Sequence[str]) -> str:
    """Write a set for a person."""
    return ", ".join(map(visible, labels)) or "no label"
