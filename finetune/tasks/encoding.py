"""Encodes a data set some rows at a time: in this process, or in several where it is large."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from finetune.core.encoded import Encoded, Examples, renumbered, table_of
from finetune.core.errors import FinetuneError
from finetune.core.examples import Example, token_facts
from finetune.core.progress import PART, parts
from finetune.core.signals import end_with_parent

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

PROCESSES = 16
"""The most that encode together; more would wait for the one that collects."""
AHEAD = 4
"""Parts by which each of them may be ahead of the one that collects."""


@dataclass(frozen=True)
class EncodedRows:
    """Some rows of a data set as examples."""

    examples: list[Example]
    counts: Counter[str] = field(default_factory=Counter)
    """What is counted for the report's data section, such as how many were cut."""
    owners: Sequence[int] | None = None
    """Of examples that are pieces of rows, the place of each one's row among those that were given; their numbers are
    given afterwards. None: an example is a row, and has its number."""
    sizes: dict[str, Sequence[int]] = field(default_factory=dict)
    """What is told as a mean and a maximum, by name: (examples,)."""


class Encoder(Protocol):
    """What encoding takes of a task; its methods say what they do."""

    @property
    def dynamic(self) -> bool:
        """Tell whether an example differs each time it is seen."""

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        """Encode some rows."""

    def resample(self, example: Example, seed: int) -> Example:
        """Make an example as it is seen once."""

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        """Add the facts that the counts of all rows give."""


def encode(task: Encoder, data: Dataset, at: str, training: bool) -> Encoded:
    """Encode ``data``, read at recipe path ``at``, as ``task`` does it."""
    from finetune.data.sources import as_table
    from finetune.data.spool import Spool

    collected, counts, written = Spool(), Counter[str](), 0
    owners, sizes = list[np.ndarray](), dict[str, list[np.ndarray]]()
    for start, part, found in _encoded(task, as_table(data), at, training):
        if found.owners is not None:
            owners.append(np.asarray(found.owners, np.int64) + start)
            part = renumbered(part, written)
        if task.dynamic and not training:  # what is held out is drawn once
            part = table_of([task.resample(example, example.number) for example in Examples(part)])
        collected.add(part)
        written += part.num_rows
        counts.update(found.counts)
        for name, own in found.sizes.items():
            sizes.setdefault(name, []).append(np.asarray(own, np.int64))
    kept = Examples(collected.finish())
    facts = {"tokens": token_facts(kept.lengths)}
    facts |= {name: token_facts(np.concatenate(own)) for name, own in sizes.items()}
    return task.described(Encoded(kept, facts, np.concatenate(owners) if owners else None), counts, data, at)


def _encoded(task: Encoder, table: pa.Table, at: str, training: bool) -> Iterator[tuple[int, pa.Table, EncodedRows]]:
    """Yield, for some rows after others, the number of the first of them, their examples as a table, and the rest of
    what they are encoded as: a process sends a table's few buffers much sooner than as many objects."""
    from finetune.data import spool
    from finetune.data.sources import as_dataset

    def rows_from(start: int) -> tuple[pa.Table, EncodedRows]:
        found = task.encode_rows(as_dataset(table.slice(start, PART)), at, training)
        return table_of(found.examples), replace(found, examples=[])

    title, starts = f"tokenising {at}", range(0, table.num_rows, PART)
    processes = min(len(os.sched_getaffinity(0)), PROCESSES) if sys.platform == "linux" else 1
    if table.nbytes <= spool.IN_MEMORY or processes < 2:
        for some in parts(table.num_rows, title, PART):
            yield some.start, *rows_from(some.start)
        return
    # Forked, they have the table's pages and the task as they are; neither could be sent to them as cheaply.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _begin, (rows_from,)) as pool:
        try:
            ahead = deque(pool.submit(_one, start) for start in starts[: AHEAD * processes])
            for number, some in enumerate(parts(table.num_rows, title, PART), AHEAD * processes):
                yield some.start, *ahead.popleft().result()
                if number < len(starts):
                    ahead.append(pool.submit(_one, starts[number]))
        except BrokenProcessPool as error:
            found = f"a process that was tokenising {at} was killed, as a system does that has no memory left"
            raise FinetuneError(f"{found}: give it more, or fewer processors") from error
        finally:
            pool.shutdown(cancel_futures=True)


_rows_from: Callable[[int], tuple[pa.Table, EncodedRows]]
"""In a process of the pool: what it does."""


def _begin(rows_from: Callable[[int], tuple[pa.Table, EncodedRows]]) -> None:
    global _rows_from
    _rows_from = rows_from
    gc.freeze()  # what was there before is not ours to look through for garbage, time and again
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever began us decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent(signal.SIGKILL)  # and whoever is killed cannot
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there are as many of us as processors


def _one(start: int) -> tuple[pa.Table, EncodedRows]:
    return _rows_from(start)
