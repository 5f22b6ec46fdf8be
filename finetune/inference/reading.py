"""Reads the file that is to be predicted: which of its rows a model can be asked about, and what is wrong with it, in
the words of the command."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetune.core.errors import InputError, Problem, bad_input
from finetune.data.checks import take
from finetune.data.columns import require_column
from finetune.data.options import Source
from finetune.data.sources import Rows, as_table, read_rows
from finetune.inference.asking import Asker, columns_mapped

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.tasks.base import Task

CHECKED = 1 << 15
"""Rows that are checked together before anything is predicted."""


@dataclass(frozen=True)
class Input:
    """The rows of a file, and how a model is shown them."""

    source: Source
    rows: Rows
    columns: Mapping[str, str]
    """New columns, of the recipe that the model was trained by."""
    at: str
    """What messages call the file."""
    asked: np.ndarray
    """Numbers of the rows that have a text, from 0 (asked,): the model is asked about these alone."""

    @property
    def total(self) -> int:
        """Count all rows of the file."""
        return int(self.rows.written.num_rows)

    def __len__(self) -> int:
        return len(self.asked)

    def part(self, start: int, count: int) -> Dataset:
        """Give ``count`` rows that have a text, from number ``start`` of these on, as the model's task reads them."""
        own = self.asked[start : start + count]
        data = _part(self.rows, self.columns, self.source, self.at, own[0], own[-1] + 1 - own[0])
        return data if data.num_rows == len(own) else take(data, own - own[0])

    def written(self, start: int, count: int) -> pa.Table:
        """Give the same rows as the file has them, and those without a text up to the next part."""
        begin, end = self._span(start, count)
        return self.rows.written.slice(begin, end - begin)

    def spread(self, said: pa.Table, start: int, count: int) -> pa.Table:
        """Put what was ``said`` of a part beside the rows that :meth:`written` gives: nothing of those without a
        text."""
        begin, end = self._span(start, count)
        if end - begin == said.num_rows:
            return said
        places = np.full(end - begin, -1)
        places[self.asked[start : start + count] - begin] = np.arange(said.num_rows)
        return said.take(pa.array(places, mask=places < 0))

    def _span(self, start: int, count: int) -> tuple[int, int]:
        """Find the rows of the file, from the first up to the last, that stand in a part."""
        begin = int(self.asked[start]) if start else 0
        return begin, int(self.asked[start + count]) if start + count < len(self.asked) else self.total


def read_input(asker: Asker, source: Source, at: str) -> Input:
    """Read the file, and refuse it where it has rows that the model cannot be asked about, or no texts at all."""
    with told_as_options(at):
        rows = read_rows(source, at)
        columns = columns_mapped(asker.opened, rows.written.column_names)
        task = asker.task_for([*rows.written.column_names, *columns])
        rows = _as_written(rows, task, columns)
        asked = []
        with asker.runtime.progress.phase(f"checking {at}", rows.table.num_rows) as phase:
            for start in range(0, rows.table.num_rows, CHECKED):
                data = _part(rows, columns, source, at, start, CHECKED)
                _refuse_missing(task, data, at)
                own = np.flatnonzero(_with_text(task, data))
                if len(own):
                    asker.check(data if len(own) == data.num_rows else take(data, own), at)
                asked.append(start + own)
                phase.step(min(start + CHECKED, rows.table.num_rows))
    found = Input(source, rows, columns, at, np.concatenate(asked))
    if not len(found):
        advice = "name the column that has the texts, as in task.text=NAME, or another file"
        raise bad_input("FILE", f"no row of '{at}' has a text in {_listed(task)}", advice)
    return found


def _part(rows: Rows, columns: Mapping[str, str], source: Source, at: str, start: int, count: int) -> Dataset:
    return rows.part(int(start), int(count), columns, at, source.encoding)


def unasked(asker: Asker, given: Input) -> str | None:
    """Say in one line how many rows have no text; None: all have one."""
    missing = given.total - len(given)
    task = asker.task_for([*given.rows.written.column_names, *given.columns])
    have = "row has" if missing == 1 else "rows have"
    return f"{missing:,} {have} no text in {_listed(task)}: no prediction stands there" if missing else None


def _listed(task: Task) -> str:
    return " and ".join(f"'{name}'" for name in task.inputs() if name != getattr(task.options, "tools", None))


def _as_written(rows: Rows, task: Task, columns: Mapping[str, str]) -> Rows:
    """Take the texts that ``task`` reads as they stand in a delimited file, also where all of them are numbers."""
    if not rows.delimited:
        return rows
    choices = getattr(task.options, "choices", None) or ()  # which a model has learnt as numbers where they are some
    needed = [name for name in task.inputs() if name not in ([choices] if isinstance(choices, str) else choices)]
    table = rows.table
    for name in {columns.get(name, name) for name in needed} & set(table.column_names):
        table = table.set_column(table.column_names.index(name), name, rows.written[name])
    return rows._replace(table=table)


def _refuse_missing(task: Task, data: Dataset, at: str) -> None:
    """Refuse a file without a column that the task reads, by the names that are in the file: the task itself sees
    stand-ins for right answers beside them."""
    options = [(f"task.{key}", value) for key, value in task.options if key != "type"]
    for name in task.inputs():
        if option := next((key for key, value in options if name == value or name in _list(value)), None):
            require_column(data, name, at, option)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _with_text(task: Task, data: Dataset) -> np.ndarray:
    """Tell which rows have something to ask about (rows,): no value of theirs is missing, and not all are blank."""
    names = [name for name in task.inputs() if name != getattr(task.options, "tools", None)]
    given = [column for name, column in zip(data.column_names, as_table(data).columns, strict=True) if name in names]
    there, blank = np.ones(data.num_rows, bool), np.full(data.num_rows, bool(given))
    for column in given:
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        there &= pc.is_valid(column).to_numpy()
        blank &= pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), True).to_numpy() if text else False
    return there & ~blank


OPTIONS = ("format", "split", "encoding")
"""Options of a source that the command has too."""

WORDS = (
    (r"take `encoding` out, or set `encoding: utf-8`", "add --encoding utf-8"),
    (r"set `encoding: (\S+?)`", r"add --encoding \1"),
    (r"set `encoding` to what it was written in", "add --encoding with what it was written in"),
    (r"; `encoding_errors: replace` puts U\+FFFD in \d+ places?", ""),
    (r"set `format: (\S+?)`", r"add --format \1"),
    (r"`format: (\S+?)`", r"--format \1"),
    (r"set `[^`]*\.format` to", "add --format with"),
    (r"make text of them: .*", "write them as texts in the file"),
)
"""Advice about a recipe, and what takes its place where there is none."""


@contextmanager
def told_as_options(at: str) -> Iterator[None]:
    """Tell what is wrong with the file at ``at`` by the options of the command: its path is no key of a recipe."""
    try:
        yield
    except InputError as error:
        raise InputError(_told(problem, at) for problem in error.problems) from error


def _told(problem: Problem, at: str) -> Problem:
    path, advice = problem.path, problem.advice
    if path == f"{at}.path":
        path = None if problem.where else "FILE"
    for option in OPTIONS:
        path = f"--{option}" if path == f"{at}.{option}" else path
    for pattern, words in WORDS:
        advice = re.sub(pattern, words, advice, flags=re.DOTALL)
    return replace(problem, path=path, advice=advice)


def source_of(path: str, asker: Asker, options: Mapping[str, Any]) -> Source:
    """How the file at ``path`` is read: as the recipe's own training data where nothing is said, which may have no
    header line, or another encoding."""
    from pydantic import ValidationError

    train = asker.opened.recipe.data.train
    known: dict[str, Any] = {"path": path, **{name: value for name, value in options.items() if value is not None}}
    if isinstance(train, Source):
        known.setdefault("encoding", train.encoding)
        if train.names and path.rpartition(".")[2] == train.path.rpartition(".")[2]:
            known.setdefault("names", train.names)
    try:
        return Source.model_validate(known)
    except ValidationError as error:
        raise InputError(bad_input("FILE", str(each["msg"])).problems[0] for each in error.errors()) from error
