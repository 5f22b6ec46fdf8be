"""The prediction store: one table per run and held-out task, one row per example, from which every statistic comes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finetune.core.errors import Damaged
from finetune.core.run_dir import atomic, undamaged

ADDED = ("margin", "margin_norm", "reward", "bytes")
EXTRACTED = ("extracted", "extracted_reference")
"""Columns of numbers and of texts that only some stores have."""
OWN = "own:"
"""How columns begin that hold what examples contribute to a metric of the user's, or of the task's own."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """One run's predictions for the ``n`` examples of one held-out task. Rows may stand in any order."""

    example: np.ndarray
    """(n,) int64: row number in the held-out set, the same for all runs; no number twice."""
    prediction: list[str]
    """The predicted label or number, or the generated text."""
    reference: list[str]
    """The true label or number, or the text that was wanted. Of spans, of which several may be right: all of them, as a
    JSON list of texts, which is empty where the text does not answer (:func:`finetune.core.answers.spans_in`); the
    prediction is one text, empty where no answer is said."""
    score: np.ndarray
    """(n,) float64: 1 or 0 for a right or wrong label, ROUGE-L in [0, 1] for a text."""
    loss: np.ndarray | None = None
    """(n,) float64: negative log-likelihood of the reference, summed over its label tokens, in nats; 0 where
    `weight` is."""
    weight: np.ndarray | None = None
    """(n,) float64: label tokens counted in `loss`; 1 for classification, and 0 where the reference is no known
    label."""
    probabilities: np.ndarray | None = None
    """(n, labels) float32, where one label of several is the answer."""
    labels: tuple[str, ...] = ()
    """What the columns of `probabilities` stand for."""
    bytes: np.ndarray | None = None
    """(n,) float64: bytes in UTF-8 of the text that the label tokens stand for."""
    margin: np.ndarray | None = None
    """(n,) float64: log-likelihood of the chosen answer minus that of the rejected one, where there are both, in nats;
    of spans, that of the best one minus that of no answer, whichever is said."""
    reward: np.ndarray | None = None
    """(n,) float64: by how much `margin` exceeds that of the untuned model, times the strategy's factor (DPO's beta):
    the implicit reward of the chosen answer minus that of the rejected one. Where a metric asks for it."""
    margin_norm: np.ndarray | None = None
    """(n,) float64: log-likelihood of the right choice minus that of the best other one, each divided by the
    characters of its text, where choices are compared by likelihood, in nats per character."""
    extracted: list[str] | None = None
    """The answers that were found in `prediction`, empty where there is none, for tasks that look for them."""
    extracted_reference: list[str] | None = None
    """The same of `reference`."""
    own: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By the name of a metric that is a user's function, or the task's own, (n,) float64: what each example contributes
    to it."""

    def __post_init__(self) -> None:
        """Raises ValueError when the columns do not fit together: a mistake of ours, never of a person."""
        n = len(self.example)
        for name in (each.name for each in fields(self) if each.name not in ("example", "labels", "own")):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise ValueError(f"{name} has {len(column)} rows where example has {n}")
        if self.probabilities is not None and self.probabilities.shape != (n, len(self.labels)):
            raise ValueError(f"probabilities are {self.probabilities.shape}, wanted ({n}, {len(self.labels)} labels)")
        numbers, counts = np.unique(self.example, return_counts=True)
        if len(numbers) != n:
            raise ValueError(f"examples scored more than once: {numbers[counts > 1][:10].tolist()}")

    def __len__(self) -> int:
        return len(self.example)

    def columns(self) -> dict[str, Any]:
        """Give the columns by name, as metrics read them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def write(self, path: Path, key: str = "") -> None:
        """Write the rows, in order of `example`, as parquet; a crash leaves the old file or the new one.

        ``key`` identifies the weights, data and options that they come from, for :func:`read_if`.
        """
        columns = {
            "example": pa.array(np.asarray(self.example, np.int64)),
            "prediction": pa.array(self.prediction, pa.string()),
            "reference": pa.array(self.reference, pa.string()),
            "score": _floats(self.score, len(self)),
            "probabilities": _rows(self.probabilities, len(self)),
            "loss": _floats(self.loss, len(self)),
            "weight": _floats(self.weight, len(self)),
        }
        columns |= {name: _floats(own, len(self)) for name in ADDED if (own := getattr(self, name)) is not None}
        columns |= {name: pa.array(own, pa.string()) for name in EXTRACTED if (own := getattr(self, name)) is not None}
        columns |= {OWN + name: _floats(values, len(self)) for name, values in self.own.items()}
        table = pa.table(columns).sort_by("example")
        table = table.replace_schema_metadata({"labels": json.dumps(self.labels, ensure_ascii=False), "key": key})
        with atomic(path) as temporary:
            pq.write_table(table, temporary, write_page_checksum=True)


def read_if(path: Path, key: str) -> Predictions | None:
    """Read the predictions in ``path`` if they come from the weights, data and options that ``key`` stands for."""
    if not path.exists():
        return None
    try:
        with undamaged(path):
            known = pq.read_schema(path).metadata.get(b"key", b"").decode()
        return read(path) if known == key else None
    except Damaged:  # they can be computed again
        return None


def read(path: Path) -> Predictions:
    """Read the predictions in ``path``, in order of `example`; columns without any value come back as None. Raises
    :class:`Damaged` where they are not those that were written."""
    # Not `read_table`, which takes `key=value` folders above the file for more columns.
    with undamaged(path):
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    labels = tuple(json.loads(table.schema.metadata[b"labels"]))
    score, loss, weight = (_numbers(table[name]) for name in ("score", "loss", "weight"))
    probabilities = None
    if labels and table["probabilities"].null_count == 0:
        flat = table["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        probabilities = flat.reshape(len(table), len(labels))
    return Predictions(
        example=table["example"].to_numpy(),
        prediction=table["prediction"].to_pylist(),
        reference=table["reference"].to_pylist(),
        score=np.empty(0) if score is None else score,
        loss=loss,
        weight=weight,
        probabilities=probabilities,
        labels=labels,
        **_added(table),
    )


def _added(table: pa.Table) -> dict[str, Any]:
    """Give the columns that only some stores have, by name."""
    found: dict[str, Any] = {name: _numbers(table[name]) for name in ADDED if name in table.column_names}
    found |= {name: table[name].to_pylist() for name in EXTRACTED if name in table.column_names}
    own = [name for name in table.column_names if name.startswith(OWN)]
    return found | ({"own": {name.removeprefix(OWN): table[name].to_numpy() for name in own}} if own else {})


def _floats(values: np.ndarray | None, n: int) -> pa.Array:
    return pa.nulls(n, pa.float64()) if values is None else pa.array(np.asarray(values, np.float64))


def _rows(matrix: np.ndarray | None, n: int) -> pa.Array:
    """Give a matrix (n, labels) as ``list<float32>``, row by row."""
    if matrix is None:
        return pa.nulls(n, pa.list_(pa.float32()))
    offsets = np.arange(n + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(matrix, np.float32).ravel()))


def _numbers(column: pa.ChunkedArray) -> np.ndarray | None:
    """Give a float column, or None when it holds no value at all."""
    return None if column.null_count == len(column) else column.to_numpy()
