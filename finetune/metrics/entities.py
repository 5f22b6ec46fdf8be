"""Entities in a sentence's tags, as CoNLL's own script for scoring (conlleval) reads them.

A tag is `O`, or a mark and a type: `B-person` begins an entity, `I-person` goes on with one. So in IOB2; in IOB1 an
entity begins with `I-` except after another of its type; in BIOES `E-` ends one, and `S-` is a whole one. One reading
does for all: an entity begins at `B-` or `S-`, and at any tag that cannot go on with what stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

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


def counts(columns: Columns) -> NDArray[np.int64]:
    """Count for each example the entities that are found, said and wanted: (examples, 3). Found: of those wanted, the
    ones that are said with the same words and the same type."""
    rows = [(len(said & wanted), len(said), len(wanted)) for said, wanted in _pairs(columns)]
    return np.array(rows, np.int64).reshape(-1, 3)


def counts_by_type(columns: Columns) -> dict[str, NDArray[np.int64]]:
    """Give the :func:`counts` of each type that is said or wanted."""
    pairs, found = _pairs(columns), dict[str, NDArray[np.int64]]()
    for place, (said, wanted) in enumerate(pairs):
        for column, some in enumerate((said & wanted, said, wanted)):
            for *_, kind in some:
                if kind not in found:
                    found[kind] = np.zeros((len(pairs), 3), np.int64)
                found[kind][place, column] += 1
    return found


def _pairs(columns: Columns) -> list[tuple[frozenset[Entity], frozenset[Entity]]]:
    """Find the entities said and wanted in each example."""
    return [
        (_found(said), _found(wanted)) for said, wanted in zip(columns["prediction"], columns["reference"], strict=True)
    ]


@lru_cache(1 << 14)  # the same references are read for each run and each metric
def _found(tags: str) -> frozenset[Entity]:
    return frozenset(entities(tags.split()))
