"""Reads files of one word a line, as those of CoNLL-2003 and WNUT: a blank line ends a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from finetune.core.errors import InputError, Problem
from finetune.data.encodings import Written
from finetune.data.formats.base import FORMATS, Format, text_blocks

if TYPE_CHECKING:
    import pyarrow as pa

SENTENCES = 1 << 12
"""Sentences that are made a table at once."""

DOCUMENT = "-DOCSTART-"
"""How a line begins that stands between documents."""

BLANK = " \t\r"
"""What separates values. Other spaces, such as the no-break space, are part of a word."""


@FORMATS.register
class Conll(Format):
    """One row per sentence, from files of one word a line with what is said of it in further columns.

    Columns, all lists of text: ``words`` (the first), ``tags`` (the last) and ``column_2``, ``column_3``, … for those
    between. Values are separated by tabs in lines that have any, and elsewhere by spaces. Passed over are lines that
    begin with ``-DOCSTART-``, and comments: lines of ``# …`` before the first word of a sentence. ``#topic`` is a
    word, and so is a ``#`` within a sentence, or before a tab.
    """

    name: ClassVar[str] = "conll"
    suffixes: ClassVar[tuple[str, ...]] = (".conll",)

    @classmethod
    def blocks(cls, path: Path, source: Written, at: str) -> Iterator[pa.Table]:
        sentence: list[list[str]] = []
        sentences: list[list[list[str]]] = []
        number, columns = 0, 0
        for text in text_blocks(path, source, at):
            for line in text.removesuffix("\n").split("\n"):
                number += 1
                values = _values(line, begins=not sentence)
                if values:
                    columns = columns or len(values)
                    if len(values) != columns or "" in values:
                        raise _ragged(values, columns, at, f"{path}:{number}")
                    sentence.append(values)
                elif values is None and sentence:
                    sentences.append(sentence)
                    sentence = []
                    if len(sentences) == SENTENCES:
                        yield _table(sentences, columns)
                        sentences = []
        if sentence:
            sentences.append(sentence)
        if sentences:
            yield _table(sentences, columns)


def _values(line: str, begins: bool) -> list[str] | None:
    """The values of a line; none for a comment, and None where a sentence ends. ``begins``: before its first word."""
    line = line.rstrip(BLANK)
    if not line.strip(BLANK) or line.startswith(DOCUMENT):
        return None
    if begins and re.match(r"#+(?: |$)", line):
        return []
    return line.split("\t") if "\t" in line else re.split(" +", line.strip(BLANK))


def _ragged(values: Sequence[str], columns: int, at: str, where: str) -> InputError:
    found = f"{len(values)} values, where {columns} are expected, as in the lines before it"
    if "" in values:
        found = "a value is empty: two tabs stand side by side, or the line begins with one"
    advice = "every line has a word, and as many values as the first; a blank line stands between sentences"
    return InputError(Problem(found, advice, f"{at}.path", where))


def _table(sentences: Sequence[Sequence[Sequence[str]]], columns: int) -> pa.Table:
    import pyarrow as pa

    names = ["words", *(f"column_{number}" for number in range(2, columns)), *(["tags"] if columns > 1 else [])]
    kind = pa.list_(pa.string())
    return pa.table(
        {
            name: pa.array([[values[place] for values in sentence] for sentence in sentences], kind)
            for place, name in enumerate(names)
        }
    )
