"""Repeated examples within training data, held-out examples in it, and fingerprints of what is in a dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetune.core.errors import InputError, Problem, bad_input
from finetune.core.progress import parts
from finetune.data.json_text import parsed
from finetune.data.nested import plain_values, values_of
from finetune.data.rows import ROW
from finetune.data.sources import EXAMPLE, as_dataset, as_table
from finetune.data.spool import taken

if TYPE_CHECKING:
    from datasets import Dataset

CHUNK = 4096
"""Rows turned into Python objects at once."""

EXCERPT = 80
"""Characters of an example that an error message shows."""


def keys(dataset: Dataset, inputs: Sequence[str]) -> np.ndarray:
    """One digest per row of what its ``inputs`` say, (rows,) of 16 bytes: equal for rows that differ in letter case or
    spacing only, or of which one has as JSON text the list or object that is in the other."""
    table = as_table(dataset.select_columns(list(inputs)))
    found = bytearray()  # and not as many objects, of which each takes four times as much
    for rows in parts(table.num_rows, "comparing examples", CHUNK):
        columns = [plain_values(table[name].slice(rows.start, CHUNK)) for name in inputs]
        # The separator counts as space, so that it is in none of the texts.
        texts = ("\x1f".join(map(_canonical, row)) for row in zip(*columns, strict=True))
        found += b"".join(
            hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest() for text in texts
        )
    return np.frombuffer(found, dtype="S16")


def _canonical(value: Any) -> str:
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = parsed(value)
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
    _, first, same = np.unique(keys(dataset, inputs), return_index=True, return_inverse=True)
    again = np.flatnonzero(first[same] != np.arange(len(same)))
    if len(again) and action == "refuse":
        row = int(again[0])
        earlier = int(first[same[row]])
        found = f"{len(again)} of {dataset.num_rows} examples repeat an earlier one; the first is row "
        found += f"{_number(dataset, row)}, which repeats row {_number(dataset, earlier)}: "
        found += _excerpt(dataset, row, inputs)
        raise bad_input(at, found, "take them out of the file, or set `data.duplicates` to drop or keep")
    return take(dataset, np.sort(first)), len(again)


def count_differing(dataset: Dataset, inputs: Sequence[str], beside: Sequence[str]) -> int:
    """Count the repeated examples that have something else ``beside`` their inputs than the first of them."""
    beside = [name for name in beside if name in dataset.column_names]
    if not beside:
        return 0
    _, first, same = np.unique(keys(dataset, inputs), return_index=True, return_inverse=True)
    said = keys(dataset, beside)
    return int((said != said[first[same]]).sum())


def without_leaks(
    train: Dataset, held_out: Mapping[str, Dataset], inputs: Sequence[str], action: Literal["refuse", "drop", "allow"]
) -> tuple[Dataset, dict[str, Any]]:
    """Drop examples of ``train`` that are held out too (none, for ``allow``), and give the facts about them.

    ``held_out`` maps the recipe path of each set to its examples. Facts: ``checked`` held-out examples, ``found``
    among them in training, the ``action``, and ``dropped`` training examples.

    Raises:
        InputError: at the path of each set that has leaked, when ``action`` is ``refuse``.
    """
    known, first, same = np.unique(keys(train, inputs), return_index=True, return_inverse=True)
    leaked = np.zeros(len(known), dtype=bool)
    found, problems = 0, []
    for at, dataset in held_out.items():
        places = _places(known, keys(dataset, inputs))
        shared = np.flatnonzero(places >= 0)
        found += len(shared)
        leaked[places[shared]] = True
        if len(shared):
            row = int(shared[0])
            problems.append(_leak(at, dataset, row, train, int(first[places[row]]), len(shared), inputs))
    if problems and action == "refuse":
        raise InputError(problems)
    dropped = leaked[same] & (action == "drop")
    if dropped.all():
        raise bad_input("data.leaks", "every training example is held out too, and dropping them leaves none")
    checked = sum(dataset.num_rows for dataset in held_out.values())
    facts = {"checked": checked, "found": found, "action": action, "dropped": int(dropped.sum())}
    return take(train, np.flatnonzero(~dropped)) if dropped.any() else train, facts


def _places(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Find where each of the ``wanted`` keys stands among those that are ``known``, in order: (rows,), -1: nowhere."""
    found = np.searchsorted(known, wanted).clip(max=max(len(known) - 1, 0))
    return np.where(known[found] == wanted, found, -1) if len(known) else np.full(len(wanted), -1)


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
    found = [keys(other, inputs) for other in others]
    known = np.unique(np.concatenate(found)) if found else np.empty(0, "S16")
    return int((_places(known, keys(dataset, inputs)) >= 0).sum())


def fingerprint(dataset: Dataset) -> str:
    """Hash all columns but the rows' numbers (SHA-256): alike on every machine, whatever the file was."""
    table = as_table(dataset)
    names = sorted(name for name in table.column_names if name not in (EXAMPLE, ROW))
    digest = hashlib.sha256(json.dumps(names).encode())
    for rows in parts(table.num_rows, "computing the digest of examples", CHUNK):
        values = [table[name].slice(rows.start, CHUNK).to_pylist() for name in names]
        digest.update(json.dumps(values, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def take(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The ``rows`` of ``dataset``, ascending."""
    return as_dataset(taken(as_table(dataset), rows))


def _number(dataset: Dataset, row: int) -> int:
    """The row's number in its source, counted from 1."""
    return dataset[EXAMPLE][row] + 1


def _excerpt(dataset: Dataset, row: int, inputs: Sequence[str]) -> str:
    [value] = values_of(dataset.select([row]), inputs[0])
    text = " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)).split())
    return f"'{text}'" if len(text) <= EXCERPT else f"'{text[:EXCERPT]}…'"
