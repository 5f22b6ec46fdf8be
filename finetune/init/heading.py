"""Whether the first line of a delimited file names its columns, or is an example; and what stands between them."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Sequence
from itertools import dropwhile
from pathlib import Path
from statistics import median

from finetune.core.errors import bad_input
from finetune.data.formats.base import named_by
from finetune.init.names import HINTS, words_of

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
WORDY = 6
"""Words from which on a heading reads like an example."""
ALIKE = 3
"""How many times as long as the values below it, or as short, a heading is that may be one of them."""
START, ROWS = 1 << 18, 400
"""Bytes of a file, and rows, that are looked at."""
MARKS = {",": "','", ";": "';'", "|": "'|'", "\t": "tabs"}
"""What may stand between columns, and how it is called."""
OWN = {"text", "sentence", "title", "body", "content", "document", "message", "review", "comment", "label", "labels"}
"""Names of columns that are hardly values."""
KNOWN = OWN.union(*HINTS.values())


def missing_header(path: str) -> list[str]:
    """Name the columns of a delimited file whose first line is an example; none where it is a header.

    A heading is no number where the column below has numbers, does not come again as a value, and is not a sentence
    such as those below it.
    """
    heading, *body = _rows(path, _delimiter(path))
    body = [row for row in body if len(row) == len(heading) and row != heading]  # the same header, of joined files
    columns = list(zip(*body, strict=True))
    pairs = list(zip(heading, columns, strict=False))
    numeric = any(
        NUMBER.fullmatch(name.strip()) and all(NUMBER.fullmatch(value.strip()) for value in column if value.strip())
        for name, column in pairs
    )
    again = [name for name, column in pairs if name and column.count(name) > 1]
    if len(again) == 1:  # a label that is called as its column is, where a heading is a usual one
        others = [name for name in heading if name not in again]
        again = [] if again[0].lower() in OWN or any(map(_is_known, others)) else again
    sentence = any(len(name.split()) >= WORDY for name in heading) and all(_may_be_one(*pair) for pair in pairs)
    if not columns or not (numeric or again or sentence):
        return []
    return [f"column_{number}" for number in range(1, len(heading) + 1)]


def refuse_other_marks(path: str, at: str) -> None:
    """Refuse a file of one column in whose every row, the heading too, other marks stand as often."""
    own = _delimiter(path)
    if len(_rows(path, own)[0]) != 1:
        return
    for mark, called in MARKS.items():
        rows = _rows(path, mark)
        if mark != own and len(rows) > 1 and len(rows[0]) > 1 and len({*map(len, rows)}) == 1:
            advice = {",": "call it .csv", "\t": "call it .tsv, or write it with commas"}.get(mark)
            found = f"the columns of '{path}' stand apart by {called}"
            raise bad_input(f"{at}.path", found, advice or "write it with commas, or as .tsv with tabs")


def _is_known(name: str) -> bool:
    words = words_of(name)
    return bool(words) and all(word.rstrip("0123456789") in KNOWN for word in words)


def _may_be_one(name: str, column: Sequence[str]) -> bool:
    """Tell whether a heading looks like a value of the column below it."""
    if not name or name in column:
        return True
    words, given = name.split(), [value.strip() for value in column if value.strip()]
    if not given or (len(words) < WORDY and _is_known(name)):
        return False
    end = name.strip()[-1]
    if end in "?:" and sum(value.endswith(end) for value in given) < 0.1 * len(given):
        return False  # as a form asks for it
    length = median(len(value.split()) for value in given)
    return length <= ALIKE * len(words) and len(words) <= ALIKE * length


def _delimiter(path: str) -> str:
    known = named_by(path)
    return "" if known is None or not known.delimited else "\t" if known.name == "tsv" else ","


def _rows(path: str, delimiter: str) -> list[list[str]]:
    """Give rows from the beginning of a delimited file; one that is empty where it is none, or cannot be read, which
    whoever reads it will tell."""
    from finetune.data.packed import open_file

    if not delimiter or not os.path.isfile(path):
        return [[]]
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with open_file(Path(path)) as file:
            start = bytes(file.read(START))
        lines = io.StringIO(start.decode("utf-8-sig", "replace"), newline="")
        tabs = delimiter == "\t"  # between which quotes are ordinary characters
        read = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
        found = [row for row in read if row]
        # What has nothing in it above the heading is passed over, as whoever reads the file does.
        rows = list(dropwhile(lambda row: not any(map(str.strip, row)), found))
    except (OSError, csv.Error):
        return [[]]
    finally:
        csv.field_size_limit(limit)
    if len(start) == START:  # in the middle of a row
        rows = rows[:-1] or rows
    return rows[:ROWS] or [[]]
