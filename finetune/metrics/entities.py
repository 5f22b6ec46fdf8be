"""Entities in a sentence's tags, as CoNLL's own script for scoring (conlleval) reads them.

A tag is `O`, or a mark and a type: `B-person` begins an entity, `I-person` goes on with one. So in IOB2; in IOB1 an
entity begins with `I-` except after another of its type; in BIOES `E-` ends one, and `S-` is a whole one. One reading
does for all: an entity begins at `B-` or `S-`, and at any tag that cannot go on with what stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.metrics.base import Columns

Entity = tuple[int, int, str]
"""The first word, the one after the last, and the type."""

OUTSIDE = "O"
"""The tag of a word that is in no entity."""

MARKS = "BIES"


def entities(tags: Sequence[str]) -> list[Entity]:
    """Find the entities, in order. `I-` after `O` or another type begins one, as it does in seqeval unless asked to be
    strict. A word that is no tag is a type of its own, which goes on while the word is repeated."""
    found: list[Entity] = []
    begun: int | None = None
    last = ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        mark, kind = _parts(tag)
        if begun is not None and (mark not in "IE" or kind != last):
            found.append((begun, place, last))
            begun = None
        if mark == OUTSIDE:
            continue
        begun, last = place if begun is None else begun, kind
        if mark in "ES":
            found.append((begun, place + 1, last))
            begun = None
    return found


def _parts(tag: str) -> tuple[str, str]:
    """Take a tag apart: its mark, or `O`, and its type."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    mark, dash, kind = tag.partition("-")
    return (mark, kind) if dash and len(mark) == 1 and mark in MARKS else ("I", tag)


def tagged(found: Sequence[Entity], words: int) -> list[str]:
    """Write ``found`` entities as the tags of so many ``words``, in IOB2."""
    tags = [OUTSIDE] * words
    for first, after, kind in found:
        tags[first:after] = [f"B-{kind}", *[f"I-{kind}"] * (after - first - 1)]
    return tags


def counts(columns: Columns, kind: str | None = None) -> NDArray[np.int64]:
    """Count for each example the entities that are found, said and wanted: (examples, 3). Found: of those wanted, the
    ones that are said with the same words and the same type. ``kind``: only of that type."""
    pairs = zip(columns["prediction"], columns["reference"], strict=True)
    rows = []
    for said, wanted in pairs:
        one, other = (
            {each for each in entities(text.split()) if kind is None or each[2] == kind} for text in (said, wanted)
        )
        rows.append((len(one & other), len(one), len(other)))
    return np.array(rows, np.int64).reshape(-1, 3)


def ratio_of_sums(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute what each example adds to the ratio of the sums of ``above`` and ``below``, both (examples,): θ + n dθ/dw
    (see :meth:`finetune.metrics.base.Metric.contributions`), whose mean is θ. All are 0 where nothing is below."""
    total = below.sum()
    if not total:
        return np.zeros(len(below))
    ratio = above.sum() / total
    return np.asarray(ratio + len(below) * (above - ratio * below) / total)
