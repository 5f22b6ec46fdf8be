"""Labels in their order, as numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune.metrics.base import Columns


def ranks(columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the places among `labels` of predictions and references, (examples,) twice, from 0. A text that is none of
    them has the place after the last: no task that asks for ranks gives one."""
    places = {label: place for place, label in enumerate(columns["labels"])}
    said, wanted = (
        np.array([places.get(text, len(places)) for text in columns[name]], float)
        for name in ("prediction", "reference")
    )
    return said, wanted
