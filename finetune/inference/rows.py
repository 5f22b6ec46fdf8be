"""Rows that are at hand, and not in a file: from Python, or of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from finetune.core.errors import bad_input, did_you_mean
from finetune.data.mapping import add_columns, sources_of
from finetune.data.nested import json_array, plain_values
from finetune.data.sources import as_dataset, with_example
from finetune.inference.asking import Asker, asking, columns_mapped, refuse_unasked
from finetune.inference.loading import open_model

Row = dict[str, Any]

AT = "input"
"""What messages call them."""


def predict_rows(
    model: str, rows: Sequence[str] | Sequence[Mapping[str, Any]], overrides: Sequence[str], probabilities: bool
) -> list[Row]:
    """Open a model, and ask it about ``rows``: see :func:`finetune.predict`."""
    from finetune.core.progress import Progress
    from finetune.core.signals import StopRequest

    opened = open_model(model, overrides)
    refuse_unasked(opened)
    with asking(opened, Progress(), StopRequest(), probabilities=probabilities) as asker:
        texts = [each for each in rows if isinstance(each, str)]
        if len(texts) not in (0, len(rows)):
            raise bad_input(AT, "there are texts and mappings among the rows", "give rows of one kind")
        given = texts_as_rows(asker, texts) if texts else [dict(each) for each in rows if not isinstance(each, str)]
        if not given:
            return []
        given = wanted(asker, given)
        parts = (given[start : start + asker.window] for start in range(0, len(given), asker.window))
        return [row for part in parts for row in predicted(asker, part)]


def texts_as_rows(asker: Asker, texts: Sequence[str]) -> list[Row]:
    """Put texts into the one column that the task reads. Raises InputError where it reads several."""
    needed = asker.task_for(()).inputs()
    if len(needed) > 1:
        found = f"this model reads {', '.join(needed)}, and was given texts alone"
        raise bad_input(AT, found, "give objects with these keys")
    return [{needed[0]: text} for text in texts]


def wanted(asker: Asker, rows: Sequence[Row]) -> list[Row]:
    """Keep the columns that the model reads, itself or in a template of its recipe. Raises InputError where there is
    none of them, and where rows have different ones."""
    names = list(rows[0])
    if any(row.keys() != rows[0].keys() for row in rows):
        raise bad_input(AT, "rows have different keys", "give all of them the same ones")
    made = columns_mapped(asker.opened, names)
    needed = asker.task_for([*names, *made]).inputs()
    if missing := [name for name in needed if name not in names and name not in made]:
        raise bad_input(AT, f"there is no '{missing[0]}'", did_you_mean(missing[0], map(str, names)))
    own = {name for said in made.values() for name in sources_of(said, names)}
    return [{name: row[name] for name in names if name in own or name in needed} for row in rows]


def predicted(asker: Asker, rows: Sequence[Mapping[str, Any]], at: str = AT) -> list[Row]:
    """Predict ``rows``, which have the same keys: what the model says of each, by column, in JSON's types."""
    table = table_of(rows)
    made = add_columns(table, columns_mapped(asker.opened, table.column_names), at)
    columns = pa.table(asker.ask(as_dataset(with_example(made)), at))
    values = [plain_values(columns[name]) for name in columns.column_names]
    return [dict(zip(columns.column_names, row, strict=True)) for row in zip(*values, strict=True)]


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows with the same keys as a table; columns of lists and objects are JSON."""
    found = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        nested = any(isinstance(value, list | dict) for value in values)
        try:
            found[str(name)] = json_array(values) if nested else pa.array(values)
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
            advice = "send texts, or numbers that 64 bits hold"
            raise bad_input(AT, f"'{name}' holds values of several kinds, or too large", advice) from error
    return pa.table(found)
