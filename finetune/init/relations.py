"""How two columns go together: one within another, one that says what another does, lists that are as long."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from finetune.init.columns import Column

ALWAYS = 0.97
"""Share of rows from which on something counts as always so: files have mistakes."""


def share_within(part: Column, whole: Column) -> float:
    """Share of the rows with a value in ``part`` whose text stands in that of ``whole``."""
    rows = [(one.strip(), two) for one, two in zip(part.texts, whole.texts, strict=True) if one.strip()]
    return sum(one in two for one, two in rows) / len(rows) if rows else 0.0


def decides(one: Column, other: Column) -> bool:
    """Tell whether the value of ``one`` says that of ``other``, where values of ``one`` are there more than once."""
    pairs = _pairs(one, other)
    first = {value for value, _ in pairs}
    return len(first) < 0.5 * len(pairs) and len({*pairs}) <= len(first) / ALWAYS


def says_the_same(one: Column, other: Column) -> bool:
    """Tell whether each of two columns says what the other does."""
    return decides(one, other) and decides(other, one)


def names_it(text: Column, label: Column) -> float:
    """Share of the rows whose ``text`` has the row's ``label`` in it, as words."""
    rows = [(said, value) for said, value in zip(text.texts, label.texts, strict=True) if said and value]
    return sum(_has(said, value) for said, value in rows) / len(rows) if rows else 0.0


def _has(text: str, value: str) -> bool:
    plain = re.sub(r"[_\-]+", " ", value.lower())
    return re.search(rf"(?<!\w){re.escape(plain)}(?!\w)", re.sub(r"[_\-]+", " ", text.lower())) is not None


def as_long(one: Column, other: Column) -> bool:
    """Tell whether lists of two columns have as many items in each row."""
    rows = [(a, b) for a, b in zip(one.lists, other.lists, strict=False)]
    return len(one.lists) == len(other.lists) and all(len(a) == len(b) for a, b in rows)


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of the words of the shorter text that the other has too, on average over rows."""
    shares = [
        len(a & b) / min(len(a), len(b)) for a, b in zip(map(_words, one), map(_words, other), strict=True) if a and b
    ]
    return sum(shares) / len(shares) if shares else 0.0


def overlap_beyond_chance(one: Sequence[str], other: Sequence[str]) -> float:
    """:func:`overlap`, less that of each text with the next row's."""
    return overlap(one, other) - overlap(one, [*other[1:], *other[:1]])


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _pairs(one: Column, other: Column) -> list[tuple[str, str]]:
    return [(a, b) for a, b in zip(one.texts, other.texts, strict=True) if a and b]


def siblings(columns: Sequence[Column]) -> Iterator[list[Column]]:
    """Find columns whose names differ in a last digit or letter alone, without a gap: `choice_a`, `choice_b`."""
    stems: dict[tuple[str, str], list[Column]] = {}
    for column in columns:
        if found := re.fullmatch(r"(.*?)[_\- ]?(\d|[a-hA-H])", column.name):
            kind = "digit" if found[2].isdigit() else "letter"
            stems.setdefault((found[1].lower(), kind), []).append(column)
    for group in stems.values():
        ends = sorted(column.name[-1].lower() for column in group)
        run = all(ord(b) - ord(a) == 1 for a, b in itertools.pairwise(ends))
        if len(group) >= 2 and run and ends[0] in "01a":
            yield sorted(group, key=lambda column: column.name[-1].lower())
