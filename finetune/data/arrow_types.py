"""One Arrow type for each kind of value: text is `string`, bytes `binary`, lists are lists, however a file has them.

Parquet files say of themselves which Arrow type they were written from, and come back as views, dictionaries or
extensions, which the rest of the tool, and `datasets`, would have to know one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from datasets import Dataset, Features


def sound(table: pa.Table) -> pa.Table:
    """``table``, of which every text and list was found to lie where its file says: Arrow believes what it maps.

    Raises pyarrow.ArrowException.
    """
    table.validate(full=True)
    return table


def plain(table: pa.Table) -> pa.Table:
    """``table`` with the same values in plain types. Raises pyarrow.ArrowException where they are broken."""
    sound(table)
    columns = [_plain_column(column) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = _plain_type(column.type)
    if kind == column.type:
        return column
    if isinstance(column.type, pa.UuidType):
        return pa.chunked_array([[value and str(value) for value in column.to_pylist()]], kind)
    if pa.types.is_nested(kind):  # few casts between nested types exist, and that of list views gives broken lists
        return pa.chunked_array([pa.array(chunk.to_pylist(), kind) for chunk in column.chunks], kind)
    return column.cast(kind)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    is_ = pa.types
    if is_.is_string_view(kind) or isinstance(kind, pa.UuidType):
        return pa.string()
    if is_.is_binary_view(kind) or is_.is_fixed_size_binary(kind):
        return pa.binary()
    if is_.is_dictionary(kind) or is_.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    if is_.is_decimal32(kind) or is_.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if is_.is_list(kind) or is_.is_list_view(kind):
        return pa.list_(_plain_type(kind.value_type))
    if is_.is_large_list(kind) or is_.is_large_list_view(kind):
        return pa.large_list(_plain_type(kind.value_type))
    if is_.is_map(kind):
        pair = {"key": kind.key_type, "value": kind.item_type}
        return pa.list_(pa.struct([(name, _plain_type(inner)) for name, inner in pair.items()]))
    if is_.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    return kind


def named_labels(dataset: Dataset) -> pa.Table:
    """The rows of ``dataset``, in which class labels, and lists of them, are their names, and a label of -1 (hidden) is
    null."""
    return named_columns(dataset.with_format("arrow")[:], dataset.features)


def named_columns(table: pa.Table, features: Features) -> pa.Table:
    """``table`` with the names of class labels, of which ``features`` know."""
    import datasets

    for position, column in enumerate(table.column_names):
        feature = features.get(column)
        if isinstance(feature, datasets.ClassLabel) and pa.types.is_integer(table[column].type):
            codes = table[column]
            codes = pc.if_else(pc.less(codes, 0), pa.scalar(None, codes.type), codes)
            table = table.set_column(position, column, pc.take(pa.array(feature.names, pa.string()), codes))
        elif isinstance(inner := _inner(feature), datasets.ClassLabel):
            table = table.set_column(position, column, _named_lists(table[column], inner.names))
    return table


def _inner(feature: Any) -> Any:
    """The feature of a list's items; None of what is no list."""
    if isinstance(feature, list):
        return feature[0] if feature else None
    return None if isinstance(feature, dict) else getattr(feature, "feature", None)


def _named_lists(column: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Lists of class numbers, such as a sentence's tags, as lists of their names; -1 (hidden) is null."""

    def named(row: list[int | None] | None) -> list[str | None] | None:
        return None if row is None else [None if code is None or code < 0 else names[code] for code in row]

    kind = pa.list_(pa.string())
    return pa.chunked_array([pa.array(map(named, chunk.to_pylist()), kind) for chunk in column.chunks], kind)


def unknown_columns(table: pa.Table) -> list[str]:
    """Name the columns of a type that `datasets` has no word for."""
    from datasets.features.features import generate_from_arrow_type

    found = []
    for field in table.schema:
        try:
            generate_from_arrow_type(field.type)
        except (ValueError, KeyError, NotImplementedError):
            found.append(field.name)
    return found


def beyond_the_calendar(table: pa.Table) -> list[str]:
    """Name the columns with times that Python has no day for: they fail wherever their values are looked at."""
    return [name for name in table.column_names if any(map(_beyond, _leaves(table[name])))]


def _leaves(values: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """The values inside lists and objects, as columns of plain ones."""
    is_ = pa.types
    if is_.is_struct(values.type):
        for inner in values.flatten():
            yield from _leaves(inner)
    elif is_.is_list(values.type) or is_.is_large_list(values.type) or is_.is_fixed_size_list(values.type):
        yield from _leaves(pc.list_flatten(values))
    else:
        yield values


def _beyond(values: pa.ChunkedArray) -> bool:
    if not pa.types.is_temporal(values.type) or pa.types.is_interval(values.type):
        return False
    counts = values.cast(pa.int32() if values.type.bit_width == 32 else pa.int64())
    try:
        for bound in pc.min_max(counts).as_py().values():
            pa.scalar(bound, values.type).as_py()
    except (OverflowError, ValueError):
        return True
    return False
