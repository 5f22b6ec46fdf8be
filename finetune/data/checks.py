"""Repeated examples within training data, held-out examples in it, and fingerprints of what is in a dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from finetune.core.errors import InputError, Problem, bad_input
from finetune.core.progress import parts
from finetune.data.nested import plain_values, values_of
from finetune.data.sources import EXAMPLE, as_dataset, as_table

if TYPE_CHECKING:
    from datasets import Dataset

Key = bytes

CHUNK = 4096
"""Rows turned into Python objects at once."""

EXCERPT = 80
"""Characters of an example that an error message shows."""


def keys(dataset: Dataset, inputs: Sequence[str]) -> list[Key]:
    """One digest per row of what its ``inputs`` say: equal for rows that differ in letter case or spacing only."""
    table = as_table(dataset.select_columns(list(inputs)))
    found = []
    for rows in parts(table.num_rows, "comparing examples", CHUNK):
        columns = [plain_values(table[name].slice(rows.start, CHUNK)) for name in inputs]
        for row in zip(*columns, strict=True):
            # The separator counts as space, so that it is in none of the texts.
            text = "\x1f".join(map(_canonical, row))
            found.append(hashlib.blake2b(text.encode(), digest_size=16).digest())
    return found


def _canonical(value: Any) -> str:
    normal = _normal(value)
    return normal if isinstance(normal, str) else json.dumps(normal, ensure_ascii=False, sort_keys=True, default=str)


def _normal(value: Any) -> Any:
    """Write text in one letter case and spacing, throughout lists and objects; fields that are null count as absent."""
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, dict):
        return {name: _normal(item) for name, item in value.items() if item is not None}
    return value


def without_duplicates(
    dataset: Dataset, inputs: Sequence[str], action: Literal["drop", "keep", "refuse"], at: str
) -> tuple[Dataset, int]:
    """Keep the first of each set of repeated examples (or all, for ``keep``), and count those that were dropped.

    Raises:
        InputError: at ``at``, when there are repeated examples and ``action`` is ``refuse``.
    """
    if action == "keep":
        return dataset, 0
    first: dict[Key, int] = {}
    again: list[tuple[int, int]] = []
    for row, key in enumerate(keys(dataset, inputs)):
        earlier = first.setdefault(key, row)
        if earlier != row:
            again.append((earlier, row))
    if again and action == "refuse":
        earlier, row = again[0]
        found = f"{len(again)} of {dataset.num_rows} examples repeat an earlier one; the first is row "
        found += f"{_number(dataset, row)}, which repeats row {_number(dataset, earlier)}: "
        found += _excerpt(dataset, row, inputs)
        raise bad_input(at, found, "take them out of the file, or set `data.duplicates` to drop or keep")
    return take(dataset, np.array(sorted(first.values()), dtype=np.int64)), len(again)


def without_leaks(
    train: Dataset, held_out: Mapping[str, Dataset], inputs: Sequence[str], action: Literal["refuse", "drop", "allow"]
) -> tuple[Dataset, dict[str, Any]]:
    """Drop examples of ``train`` that are held out too (none, for ``allow``), and give the facts about them.

    ``held_out`` maps the recipe path of each set to its examples. Facts: ``checked`` held-out examples, ``found``
    among them in training, the ``action``, and ``dropped`` training examples.

    Raises:
        InputError: at the path of each set that has leaked, when ``action`` is ``refuse``.
    """
    rows: dict[Key, int] = {}
    train_keys = keys(train, inputs)
    for row, key in enumerate(train_keys):
        rows.setdefault(key, row)
    leaked: set[Key] = set()
    found, problems = 0, []
    for at, dataset in held_out.items():
        pairs = [(row, key) for row, key in enumerate(keys(dataset, inputs)) if key in rows]
        found += len(pairs)
        leaked.update(key for _, key in pairs)
        if pairs:
            row, key = pairs[0]
            problems.append(_leak(at, dataset, row, train, rows[key], len(pairs), inputs))
    if problems and action == "refuse":
        raise InputError(problems)
    dropped = np.array([key in leaked for key in train_keys], dtype=bool) & (action == "drop")
    if dropped.all():
        raise bad_input("data.leaks", "every training example is held out too, and dropping them leaves none")
    checked = sum(dataset.num_rows for dataset in held_out.values())
    facts = {"checked": checked, "found": found, "action": action, "dropped": int(dropped.sum())}
    return take(train, np.flatnonzero(~dropped)) if dropped.any() else train, facts


def _leak(
    at: str, dataset: Dataset, row: int, train: Dataset, train_row: int, count: int, inputs: Sequence[str]
) -> Problem:
    found = f"{count} of {dataset.num_rows} held-out examples are in the training data; the first is row "
    found += f"{_number(dataset, row)}, which is row {_number(train, train_row)} of data.train: "
    advice = "take them out of one of the files, or set `data.leaks` to drop (from training) or allow"
    if at.startswith("data.split"):
        advice = "data.train repeats examples; set `data.duplicates` to drop, so that no part gets one of another"
    return Problem(found + _excerpt(dataset, row, inputs), advice, at)


def without_shared_clusters(
    train: Dataset, held_out: Mapping[str, Dataset], column: str, action: Literal["refuse", "drop", "allow"]
) -> tuple[Dataset, dict[str, Any]]:
    """Drop examples of ``train`` whose cluster is held out too (none, for ``allow``), and give the facts about them.

    A cluster is the examples with one value of ``column``, whatever its type. Facts: the ``column``, how many clusters
    were ``found`` on both sides, and how many training examples were ``dropped``. Raises InputError as
    :func:`without_leaks` does.
    """
    own = cluster_values(train, column)
    known, shared, problems = set(own), set[str](), []
    for at, dataset in held_out.items():
        clusters = dict.fromkeys(cluster_values(dataset, column))
        both = [cluster for cluster in clusters if cluster in known]
        shared.update(both)
        if both:
            found = f"{len(both)} of the {len(clusters)} values of '{column}' are in the training data too, such as "
            advice = f"if '{column}' means the same in both files, set `data.leaks` to drop (from training) or allow; "
            advice += (
                f'else give it other values in one of them, as with `{column}: "new {{{column}}}"` in {at}.columns '
            )
            advice += "(in the braces, its name in the file)"
            if at.startswith("data.split"):
                advice = f"keep groups together with `data.split.group: {column}`"
            problems.append(Problem(f"{found}'{both[0]:.{EXCERPT}}'", advice, at))
    if problems and action == "refuse":
        raise InputError(problems)
    dropped = np.array([cluster in shared for cluster in own], dtype=bool) & (action == "drop")
    if dropped.all():
        raise bad_input("data.leaks", f"every '{column}' of the training data is held out too; dropping leaves none")
    facts = {"column": column, "found": len(shared), "dropped": int(dropped.sum())}
    return take(train, np.flatnonzero(~dropped)) if dropped.any() else train, facts


def cluster_values(dataset: Dataset, column: str) -> list[str]:
    """Spell each row's value of ``column`` alike everywhere: 7 in one file is 7.0 in another that has gaps."""
    values = as_table(dataset)[column].to_pylist()
    return [str(int(value) if isinstance(value, float) and value.is_integer() else value) for value in values]


def overlap(dataset: Dataset, others: Iterable[Dataset], inputs: Sequence[str]) -> int:
    """Count the examples of ``dataset`` that are in one of the ``others`` too."""
    known = {key for other in others for key in keys(other, inputs)}
    return sum(key in known for key in keys(dataset, inputs))


def fingerprint(dataset: Dataset) -> str:
    """Hash names and values of all columns but ``example`` (SHA-256): alike on every machine, whatever the file was."""
    table = as_table(dataset)
    names = sorted(name for name in table.column_names if name != EXAMPLE)
    digest = hashlib.sha256(json.dumps(names).encode())
    for rows in parts(table.num_rows, "computing the digest of examples", CHUNK):
        values = [table[name].slice(rows.start, CHUNK).to_pylist() for name in names]
        digest.update(json.dumps(values, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def take(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The ``rows`` of ``dataset``, in memory."""
    return as_dataset(as_table(dataset).take(pa.array(rows)))


def _number(dataset: Dataset, row: int) -> int:
    """The row's number in its source, counted from 1."""
    return dataset[EXAMPLE][row] + 1


def _excerpt(dataset: Dataset, row: int, inputs: Sequence[str]) -> str:
    [value] = values_of(dataset.select([row]), inputs[0])
    text = " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)).split())
    return f"'{text}'" if len(text) <= EXCERPT else f"'{text[:EXCERPT]}…'"
