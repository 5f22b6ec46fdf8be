"""Encoded examples in Arrow, in memory or in a file that is mapped: what is not looked at takes no memory.

A set of examples is a sequence of :class:`Example`, each made out of the table when it is asked for. What is needed of
all of them at once, such as lengths, is an array.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from finetune.core.examples import Document, Example, Frame

if TYPE_CHECKING:
    import pyarrow as pa

INPUT = "input:"
"""How columns of model inputs begin."""
LABELS, TARGETS, TARGET = "labels", "targets", "target"
"""The column of targets that are an array, with a label for each token; several values; or one."""

_SETS = count()
_PLAIN = Frame()


class Examples(Sequence[Example]):
    """A set of examples that is kept in an Arrow table."""

    lengths: np.ndarray
    """(examples,) int64: tokens of each."""
    weights: np.ndarray
    """(examples,) float64."""

    def __init__(self, table: pa.Table):
        """``table`` is made of the parts that :func:`table_of` gives."""
        self.table = table
        self.number = next(_SETS)
        """Tells it from other sets of this process."""
        self._chunks = [_Chunk(batch) for batch in table.to_batches() if batch.num_rows]
        sizes = [len(chunk.number) for chunk in self._chunks]
        self._starts = [0, *np.cumsum(sizes, dtype=np.int64).tolist()]
        self.lengths = self._joined([np.diff(chunk.inputs["input_ids"].offsets) for chunk in self._chunks], np.int64)
        self.weights = self._joined([chunk.weight for chunk in self._chunks], np.float64)

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Examples:
        """Keep ``examples`` in memory."""
        if isinstance(examples, cls):
            return examples
        return cls(table_of(examples))

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...

    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        index = int(place) + (len(self) if place < 0 else 0)
        if not 0 <= index < len(self):
            raise IndexError(f"there is no example {place} among {len(self)}")
        chunk = bisect_right(self._starts, index) - 1
        return self._chunks[chunk].example(index - self._starts[chunk], (self.number, index))

    def __iter__(self) -> Iterator[Example]:
        for start, chunk in zip(self._starts, self._chunks, strict=False):
            for row in range(len(chunk.number)):
                yield chunk.example(row, (self.number, start + row))

    @property
    def numbers(self) -> np.ndarray:
        """(examples,) int64: each one's :attr:`Example.number`."""
        return self._joined([chunk.number for chunk in self._chunks], np.int64)

    @property
    def rejected(self) -> np.ndarray:
        """(examples,) int64: where a pair's rejected sequence begins; -1: no pair."""
        return self._joined([chunk.rejected for chunk in self._chunks], np.int64)

    @property
    def windows(self) -> np.ndarray:
        """(examples,) int64: windows of each one's document; 1: it is a single sequence, or a pair."""
        return self._joined([chunk.windows for chunk in self._chunks], np.int64)

    @property
    def prompts(self) -> np.ndarray:
        """(examples,) int64: tokens of each one's prompt; -1: none."""
        return self._joined([chunk.prompts for chunk in self._chunks], np.int64)

    @property
    def targets(self) -> np.ndarray:
        """(examples,) each one's target, where targets are single numbers."""
        return np.concatenate([chunk.targets for chunk in self._chunks])

    @property
    def label_counts(self) -> np.ndarray:
        """(examples,) int64: labels of each, where targets are arrays."""
        return self._joined([chunk.label_counts for chunk in self._chunks], np.int64)

    def tokens(self) -> Iterator[np.ndarray]:
        """Yield the tokens of all examples, (tokens,), some thousands at a time."""
        for chunk in self._chunks:
            yield chunk.inputs["input_ids"].values

    def labels(self) -> Iterator[np.ndarray]:
        """Yield the labels of all examples whose targets are arrays, (labels,), some thousands at a time."""
        for chunk in self._chunks:
            yield from chunk.labels

    @staticmethod
    def _joined(arrays: list[np.ndarray], dtype: Any) -> np.ndarray:
        return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.empty(0, dtype)


@dataclass(frozen=True)
class Encoded:
    """A data set as the model sees it."""

    examples: Examples
    """Given as any sequence of examples, and kept in Arrow."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Token counts, how many were cut or dropped, label counts: for the report's data section."""
    rows: np.ndarray | None = None
    """(examples,) the row of the data set that each example is a piece of, where rows are divided into several
    examples."""
    notes: list[str] = field(default_factory=list)
    """What a person has to know about how it was read, a line each."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "examples", Examples.of(self.examples))


def table_of(examples: Sequence[Example]) -> pa.Table:
    """Put some examples, alike in what they have, into a table: a part of a set's, or all of it."""
    import pyarrow as pa

    if not examples:
        return pa.table({})
    first = examples[0]
    columns: dict[str, pa.Array] = {
        "number": pa.array([example.number for example in examples], pa.int64()),
        "weight": pa.array([example.weight for example in examples], pa.float64()),
        "reference": pa.array([example.reference for example in examples], pa.string()),
        "lead": pa.array([example.frame.lead for example in examples], pa.string()),
        "tail": pa.array([example.frame.tail for example in examples], pa.string()),
        "rejected": pa.array([example.rejected for example in examples], pa.int64()),
        "prompt": _lists([example.prompt for example in examples]),
        "bytes": pa.array([example.bytes for example in examples], pa.float64()),
        "branch": _lists([example.branch for example in examples]),
        "sizes": _lists([example.sizes for example in examples]),
    }
    if isinstance(first.target, np.ndarray):
        columns[LABELS] = _lists([example.target for example in examples])
    elif isinstance(first.target, Sequence):
        columns[TARGETS] = _lists([np.asarray(example.target) for example in examples])
    else:
        columns[TARGET] = pa.array([example.target for example in examples])
    if first.document is not None:
        documents = [example.document for example in examples if example.document]
        columns["text"] = pa.array([document.text for document in documents], pa.string())
        columns["places"] = _lists([document.places.ravel() for document in documents])
        columns["starts"] = _lists([document.starts for document in documents])
    for name in first.inputs:
        columns[INPUT + name] = _lists([example.inputs[name] for example in examples])
    return pa.table(columns)


def _lists(arrays: Sequence[np.ndarray | None]) -> pa.Array:
    """A column of arrays, in their own dtype; None is null."""
    import pyarrow as pa

    given = [array for array in arrays if array is not None]
    if not given:
        return pa.nulls(len(arrays), pa.large_list(pa.int32()))
    offsets = np.cumsum([0, *(0 if array is None else len(array) for array in arrays)], dtype=np.int64)
    missing = pa.array([array is None for array in arrays]) if len(given) < len(arrays) else None
    values = pa.array(np.concatenate(given))
    return pa.LargeListArray.from_arrays(pa.array(offsets), values, mask=missing)


class _Lists:
    """A column of arrays, each of which is given as a copy: a mapped file cannot be written to."""

    def __init__(self, column: pa.Array):
        self.offsets = column.offsets.to_numpy()
        self.values = column.values.to_numpy()
        self.missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]].copy()

    def get(self, row: int) -> np.ndarray | None:
        return None if self.missing is not None and self.missing[row] else self[row]


def _target(batch: pa.RecordBatch) -> Callable[[int], Any]:
    """Give the target of each row, in the form in which it was given."""
    if LABELS in batch.schema.names:
        return _Lists(batch[LABELS]).__getitem__
    if TARGETS in batch.schema.names:
        several = _Lists(batch[TARGETS])
        return lambda row: tuple(several[row].tolist())
    single: np.ndarray = batch[TARGET].to_numpy()
    return lambda row: single[row].item()


class _Chunk:
    """The examples that were written at once."""

    def __init__(self, batch: pa.RecordBatch):
        self.number, self.weight = batch["number"].to_numpy(), batch["weight"].to_numpy()
        self.rejected = batch["rejected"].fill_null(-1).to_numpy()
        self.inputs = {
            name.removeprefix(INPUT): _Lists(batch[name]) for name in batch.schema.names if name.startswith(INPUT)
        }
        self.reference = batch["reference"]
        self._prompt, self._branch, self._sizes = (_Lists(batch[name]) for name in ("prompt", "branch", "sizes"))
        self._batch, self._target = batch, _target(batch)
        self._bytes = batch["bytes"]
        self._lead, self._tail = batch["lead"], batch["tail"]
        self._places, self._starts = (
            _Lists(batch[name]) if name in batch.schema.names else None for name in ("places", "starts")
        )
        self._framed = any(texts.unique().to_pylist() != [""] for texts in (self._lead, self._tail))

    @property
    def targets(self) -> np.ndarray:
        return self._batch[TARGET].to_numpy()

    @property
    def labels(self) -> list[np.ndarray]:
        return [_Lists(self._batch[LABELS]).values] if LABELS in self._batch.schema.names else []

    @property
    def label_counts(self) -> np.ndarray:
        return np.diff(self._batch[LABELS].offsets.to_numpy())

    @property
    def windows(self) -> np.ndarray:
        return np.ones(len(self.number), np.int64) if self._starts is None else np.diff(self._starts.offsets)

    @property
    def prompts(self) -> np.ndarray:
        lengths = np.diff(self._prompt.offsets)
        return lengths if self._prompt.missing is None else np.where(self._prompt.missing, -1, lengths)

    def example(self, row: int, origin: tuple[int, int]) -> Example:
        rejected = int(self.rejected[row])
        return Example(
            number=int(self.number[row]),
            inputs={name: values[row] for name, values in self.inputs.items()},
            target=self._target(row),
            weight=float(self.weight[row]),
            reference=self.reference[row].as_py(),
            prompt=self._prompt.get(row),
            frame=Frame(self._lead[row].as_py(), self._tail[row].as_py()) if self._framed else _PLAIN,
            rejected=None if rejected < 0 else rejected,
            bytes=self._bytes[row].as_py(),
            branch=self._branch.get(row),
            sizes=self._sizes.get(row),
            document=self._document(row),
            origin=origin,
        )

    def _document(self, row: int) -> Document | None:
        if self._places is None or self._starts is None:
            return None
        return Document(self._batch["text"][row].as_py(), self._places[row].reshape(-1, 2), self._starts[row])


def renumbered(table: pa.Table, first: int) -> pa.Table:
    """``table``, as :func:`table_of` makes it, with numbers that follow each other from ``first`` on."""
    import pyarrow as pa

    numbers = np.arange(first, first + table.num_rows, dtype=np.int64)
    return table.set_column(0, "number", pa.array(numbers)) if table.num_rows else table
