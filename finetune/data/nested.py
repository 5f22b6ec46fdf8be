"""Columns of lists and objects, which keep what the file said: every key, every null, numbers as they were written.

Arrow gives all objects of a column the same keys, and fills in null where one lacks a key. Where that, or anything
else, would change what a file says, the column holds JSON text, marked as such by its type (`arrow.json`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from datasets import Dataset


def is_nested(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds lists or objects."""
    return pa.types.is_nested(kind) or isinstance(kind, pa.JsonType)


def json_array(values: Sequence[Any]) -> pa.Array:
    """``values`` as they are, whatever lists and objects they hold; None is null. Raises UnicodeEncodeError where a
    text has half of a surrogate pair, which an escape would hide from Arrow."""
    return pa.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in values], pa.json_())


def holds_objects(values: Sequence[Any]) -> bool:
    """Tell whether ``values`` are lists and objects, and nulls, and nothing else."""
    given = [value for value in values if value is not None]
    return bool(given) and all(isinstance(value, list | dict) for value in given)


def nested_array(values: Sequence[Any]) -> pa.Array:
    """Lists and objects as Arrow holds them, where that is what they are, and as JSON elsewhere."""
    # A null that the file has would look like one that Arrow has put there.
    if not any(_has_null(value) for value in values if value is not None):
        try:
            array = pa.array(values)
        except (ValueError, TypeError, OverflowError):  # of several kinds, or larger than Arrow's numbers
            return json_array(values)
        # As text, because 1, 1.0 and true are equal, and so are objects whose keys stand in another order.
        if json.dumps(array.to_pylist()) == json.dumps(list(values)):
            return array
    return json_array(values)


def _has_null(value: Any) -> bool:
    if isinstance(value, list | dict):
        return any(map(_has_null, value.values() if isinstance(value, dict) else value))
    return value is None


def plain_values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column, lists and objects as the file had them: of a column that is not JSON, a null inside an
    object means that the key is not there."""
    values = column.to_pylist()
    if isinstance(column.type, pa.JsonType):
        return [None if value is None else json.loads(value) for value in values]
    return list(map(_without_nulls, values)) if pa.types.is_nested(column.type) else values


def values_of(dataset: Dataset, name: str) -> list[Any]:
    """:func:`plain_values` of a column of ``dataset``."""
    return plain_values(dataset.select_columns([name]).with_format("arrow")[:][name])


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_without_nulls, value))
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
