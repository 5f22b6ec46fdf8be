"""What metrics of label sets count. Shapes: N examples, K labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.core.label_sets import read
from finetune.metrics.base import Columns

Marks = NDArray[np.bool_]


def marks(columns: Columns, known: Sequence[str] = ()) -> tuple[Marks, Marks]:
    """Mark which labels are said of each example and which are right, (N, K) twice: the ``known`` labels, and others
    that occur in `prediction` or `reference`."""
    said, wanted = ([read(text) for text in columns[name]] for name in ("prediction", "reference"))
    others = sorted({label for own in (*said, *wanted) for label in own} - {*known})
    places = {label: place for place, label in enumerate((*known, *others))}
    return _marked(said, places), _marked(wanted, places)


def _marked(sets: Sequence[Sequence[str]], places: dict[str, int]) -> Marks:
    found = np.zeros((len(sets), len(places)), dtype=bool)
    for row, own in zip(found, sets, strict=True):
        row[[places[label] for label in own]] = True
    return found
