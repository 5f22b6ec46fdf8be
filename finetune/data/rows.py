"""Where a row stands in its source, which messages name, whatever part of the data it has become."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

ROW = "example:row"
"""The column with a row's number in its source, from 0, of data whose rows have been numbered anew since."""
PORTION = "portion"
"""The column that names the source of each example of a mixture."""
CARVED = "data.split."
"""How the recipe paths of parts begin that were carved from the training data."""


def with_row(table: pa.Table) -> pa.Table:
    """Keep the numbers in `example`, which is about to be written anew, as those of the source, unless that is done."""
    from finetune.data.sources import EXAMPLE

    known = ROW in table.column_names or EXAMPLE not in table.column_names
    return table if known else table.append_column(ROW, table[EXAMPLE])


def rows_of(data: Dataset) -> list[int]:
    """Number the rows of ``data`` as in their source, from 1."""
    return [number + 1 for number in data[ROW if ROW in data.column_names else "example"][:]]


def places_of(data: Dataset, at: str) -> Iterator[str]:
    """Name each row of ``data``, read at recipe path ``at``, by its number in its source: `data.train, row 7`."""
    source = "data.train" if at.startswith(CARVED) else at
    if ROW in data.column_names and PORTION in data.column_names:
        for row, portion in zip(rows_of(data), data[PORTION][:], strict=True):
            yield f"{source}, row {row} of '{portion}'"
    else:
        yield from (f"{source}, row {row}" for row in rows_of(data))
