"""What a model says of some rows, as columns that stand beside those of a file.

| answer | columns |
| --- | --- |
| `label` | `prediction`, `confidence`; `probabilities` where they are asked for |
| `labels` | `prediction`, a list; `confidence`, how sure the least sure label is; `probabilities` |
| `number` | `prediction` |
| `tags` | `prediction`, a list with a tag for each word; `confidence`, of the least sure word |
| `span` | `prediction`, empty: no answer; `confidence` |
| `choice` | `prediction`, the choice's letter; `choice`, its text; `confidence` |
| `text` | `prediction`; `confidence`, exp of the mean log-likelihood of the answer's own tokens; `extracted` |
| vectors | `vector`, of length 1; `similarity`, where there is a second text |
| none | `loss`, the mean negative log-likelihood of a token, in nats; `tokens`, how many were predicted |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from finetune.core.label_sets import read as read_set

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.core.encoded import Encoded
    from finetune.core.examples import Prediction
    from finetune.tasks.base import Task

Columns = dict[str, pa.Array]


def columns_of(
    task: Task,
    data: Dataset,
    encoded: Encoded,
    found: Sequence[Prediction],
    probabilities: bool = False,
    temperature: float = 1.0,
) -> Columns:
    """Make columns of the predictions ``found`` for the ``encoded`` rows of ``data``: see the table above.

    ``temperature`` divides the logits of answers of which one is right, before they are shares of one.
    """
    if task.answer is None:
        return _losses(encoded, found, data.num_rows)
    if found and found[0].vectors is not None:
        return _vectors(found)
    if task.answer == "number":
        return {"prediction": pa.array([float(each.text) for each in found], pa.float64())}
    if task.answer in ("label", "choice"):
        return _exclusive(task, data, found, probabilities, temperature)
    if task.answer == "labels":
        return _several(task, found, probabilities)
    if task.answer == "tags":
        return _tags(found)
    texts = [each.text for each in found]
    if task.answer == "span":
        pairs = [(each.text, each.chances) for each in found]
        sure = [None if own is None else float(own[0] if text else own[1]) for text, own in pairs]
        return {"prediction": pa.array(texts, pa.string()), "confidence": pa.array(sure, pa.float64())}
    return {"prediction": pa.array(texts, pa.string())}


def _exclusive(
    task: Task, data: Dataset, found: Sequence[Prediction], probabilities: bool, temperature: float
) -> Columns:
    """Of answers of which one is right."""
    places = {label: place for place, label in enumerate(task.labels)}
    texts = [each.text for each in found]
    shares = [tempered(each.probabilities, temperature) for each in found if each.probabilities is not None]
    columns: Columns = {"prediction": pa.array(texts, pa.string())}
    if (spelt := task.spelt(data, texts)) is not None:
        columns["choice"] = pa.array(spelt, pa.string())
    if len(shares) < len(found):
        return columns
    sure = [float(own[places[text]]) for own, text in zip(shares, texts, strict=True)]
    columns["confidence"] = pa.array(sure, pa.float64())
    if probabilities:
        columns["probabilities"] = _by_label(task.labels, shares)
    return columns


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits behind ``probabilities`` (labels,) by a ``temperature`` (Guo et al. 2017)."""
    if temperature == 1.0:
        return probabilities
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float64).tiny)) / temperature
    weights = np.exp(logits - logits.max())
    shares: np.ndarray = weights / weights.sum()
    return shares


def _several(task: Task, found: Sequence[Prediction], probabilities: bool) -> Columns:
    """Of sets of labels."""
    sets = [list(read_set(each.text)) for each in found]
    columns: Columns = {"prediction": pa.array(sets, pa.list_(pa.string()))}
    shares = [each.chances for each in found if each.chances is not None]
    if len(shares) < len(found):
        return columns
    sure = [float(np.maximum(own, 1 - own).min()) for own in shares]
    columns["confidence"] = pa.array(sure, pa.float64())
    if probabilities:
        columns["probabilities"] = _by_label(task.labels, shares)
    return columns


def _by_label(labels: Sequence[str], shares: Sequence[np.ndarray]) -> pa.Array:
    """Objects with a probability for each label; of choices, for as many as there are."""
    width = max((len(own) for own in shares), default=0)
    matrix = np.array([np.pad(own, (0, width - len(own))) for own in shares], np.float64)
    names = list(labels[:width])
    fields = [pa.array(matrix[:, place] if len(matrix) else [], pa.float64()) for place in range(len(names))]
    return pa.StructArray.from_arrays(fields, names)


def _tags(found: Sequence[Prediction]) -> Columns:
    tags = [each.text.split() for each in found]
    sure = []
    for each in found:
        seen = None if each.chances is None else each.chances[~np.isnan(each.chances)]
        sure.append(None if seen is None or not len(seen) else float(seen.min()))
    return {"prediction": pa.array(tags, pa.list_(pa.string())), "confidence": pa.array(sure, pa.float64())}


def _vectors(found: Sequence[Prediction]) -> Columns:
    """Of texts, and pairs of them, that are compared by their vectors."""
    every = [each.vectors for each in found if each.vectors is not None]
    columns: Columns = {"vector": pa.array([own[0] for own in every], pa.list_(pa.float32()))}
    if every and len(every[0]) > 1:
        columns["similarity"] = pa.array([float(each.text) for each in found], pa.float64())
    return columns


def _losses(encoded: Encoded, found: Sequence[Prediction], rows: int) -> Columns:
    """Of texts that are not answered, whose pieces are added up."""
    owners: Any = np.arange(len(found)) if encoded.rows is None else encoded.rows
    losses, weights = np.zeros(rows), np.zeros(rows)
    np.add.at(losses, owners, [each.loss or 0.0 for each in found])
    np.add.at(weights, owners, encoded.examples.weights)
    means = [loss / weight if weight else None for loss, weight in zip(losses.tolist(), weights.tolist(), strict=True)]
    return {"loss": pa.array(means, pa.float64()), "tokens": pa.array(weights.astype(np.int64))}
