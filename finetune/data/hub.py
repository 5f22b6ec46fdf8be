"""Reads datasets of the hub: whole splits through `datasets`, or some rows of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from finetune.core.progress import phase
from finetune.core.signals import stop_here
from finetune.data.arrow_types import named_columns, named_labels, plain
from finetune.data.options import Source
from finetune.data.places import TRAIN, hub_errors, hub_files, hub_name, not_loaded
from finetune.data.spool import spooled
from finetune.data.streaming import read_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator

BUFFER = 10_000
"""Rows out of which the next one is drawn, where `datasets` streams."""

ROWS = 1000
"""Rows that it gives at once."""


def read_hub(source: Source, at: str) -> pa.Table:
    """One split of a hub dataset. Class labels become their names, and a label of -1 (hidden) becomes null."""
    import datasets

    name, revision = hub_name(source)
    try:
        found = datasets.load_dataset(name, source.subset, split=source.split or TRAIN, revision=revision)
    except hub_errors() as error:
        raise not_loaded(name, error, at) from error
    return named_labels(found)


def stream_hub(source: Source, at: str, seed: int) -> tuple[pa.Table, np.ndarray | None]:
    """As many rows of one split as ``limit`` says, with the names of class labels, and their numbers in the split where
    these are known: where it lies in parquet files."""
    import datasets

    assert source.limit is not None, "options ask for it"
    found = hub_files(source, at)
    if found is None:
        return _streamed(source, at, seed, source.limit), None
    places, features = found
    table, rows, schema = read_parquet(places, source.limit, seed, at)
    return named_columns(table, features or datasets.Features.from_arrow_schema(schema)), rows


def _streamed(source: Source, at: str, seed: int, limit: int) -> pa.Table:
    """The first rows of the order in which `datasets` shuffles a stream: its shards, and rows of a buffer that moves
    along."""
    import datasets

    name, revision = hub_name(source)
    asked: dict[str, Any] = {"split": source.split or TRAIN, "revision": revision}

    def parts() -> Iterator[pa.Table]:
        found = datasets.load_dataset(name, source.subset, streaming=True, **asked)
        rows = found.shuffle(seed=seed, buffer_size=BUFFER).take(limit)
        with phase(f"reading rows of {at}", limit) as under_way:
            for part in rows.with_format("arrow").iter(ROWS):
                yield named_columns(plain(part), found.features or datasets.Features.from_arrow_schema(part.schema))
                under_way.step(under_way.done + part.num_rows)
                stop_here(f"reading {at}")

    try:
        return spooled(parts())
    except hub_errors() as error:
        raise not_loaded(name, error, at) from error
