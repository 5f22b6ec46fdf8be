"""One Arrow type for each kind of value: text is `string`, bytes `binary`, lists are lists, however a file has them.

Parquet files say of themselves which Arrow type they were written from, and come back as views, dictionaries or
extensions, which the rest of the tool, and `datasets`, would have to know one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from datasets import Dataset, Features


def plain(table: pa.Table) -> pa.Table:
    """``table`` with the same values in plain types."""
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
