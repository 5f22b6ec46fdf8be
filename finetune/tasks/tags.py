"""Sentences whose words have tags, out of lists of words and tags, or out of a text and its spans of characters."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import bad_input
from finetune.data.json_text import parsed
from finetune.metrics.entities import OUTSIDE, Entity, entities, tagged

if TYPE_CHECKING:
    from datasets import Dataset

_TAG = re.compile(r"O|[BIELSU]-\S+")
UNITS = ("bytes (UTF-8)", "units of UTF-16")
"""What programs count in that do not count characters."""

FEW = 3
"""Spans that cut words by themselves."""

_BILOU = {"L": "E", "U": "S"}
"""The other names of two marks."""


@dataclass(frozen=True)
class Sentence:
    """A text, where its words stand in it, and the tag of each word, in IOB2."""

    text: str
    words: list[tuple[int, int]]
    """Of each word its first character, and the one after its last."""
    tags: list[str]
    seen: Counter[str] = field(default_factory=Counter, compare=False)
    """How its tags were written; :func:`told` says what that means."""

    @property
    def spelt(self) -> list[str]:
        """Give the words."""
        return [self.text[start:end] for start, end in self.words]


class Unreadable(Exception):
    """A row cannot be read: the column at fault, what was found, and what to do."""

    def __init__(self, option: str, found: str, advice: str):
        super().__init__(found)
        self.option, self.found, self.advice = option, found, advice


def sentences_of(data: Dataset, at: str, options: Any) -> Iterator[Sentence]:
    """Read the rows of ``data``, read at recipe path ``at``: columns `words` and `tags` of ``options``, or `text` and
    `spans`. Raises InputError with the number of the first row that cannot be read."""
    from finetune.data.columns import require_column
    from finetune.data.nested import values_of
    from finetune.data.rows import places_of

    names = ("words", "tags") if options.text is None else ("text", "spans")
    columns = [getattr(options, name) for name in names]
    for name, column in zip(names, columns, strict=True):
        require_column(data, column, at, f"task.{name}")
    read = from_words if options.text is None else from_spans
    for where, *row in zip(places_of(data, at), *(values_of(data, column) for column in columns), strict=True):
        try:
            yield read(*row)
        except Unreadable as problem:
            raise bad_input(f"task.{problem.option}", f"{where}: {problem.found}", problem.advice) from problem


def from_words(words: Any, tags: Any) -> Sentence:
    """Read a list of words and a list of as many tags."""
    advice = (
        'a row has a list of words and a list of tags, as .conll files are read, or csv files with JSON: ["a", "b"]; '
        "for a text name text and spans"
    )
    words, tags = parsed(words), parsed(tags)
    for option, given in (("words", words), ("tags", tags)):
        if not isinstance(given, list):
            raise Unreadable(option, f"{option} are {_shown(given)}, and no list", advice)
    if not words:
        raise Unreadable("words", "there is no word", "take the row out")
    for place, word in enumerate(words, 1):
        if not isinstance(word, str):
            raise Unreadable("words", f"word {place} is {_shown(word)}, and no text", advice)
        if not word.strip():
            raise Unreadable("words", f"word {place} is empty", "take the word out, and its tag")
    if len(words) != len(tags):
        found = f"there are {len(words)} words and {len(tags)} tags"
        raise Unreadable("tags", found, "each word has one tag, which is O outside entities")
    plain = [_checked(tag, place) for place, tag in enumerate(tags, 1)]
    places, start = [], 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return Sentence(" ".join(words), places, tagged(entities(plain), len(words)), _written(plain))


def _checked(tag: Any, place: int) -> str:
    """Give a tag with the marks of IOB2 and BIOES."""
    advice = "tags are O, B-TYPE and I-TYPE (IOB2 or IOB1), or those of BIOES; a type has no blank in it"
    if isinstance(tag, int) and not isinstance(tag, bool):
        advice = f"the file does not say what numbers stand for; write names. {advice[0].upper()}{advice[1:]}"
    if not isinstance(tag, str) or _TAG.fullmatch(tag) is None:
        raise Unreadable("tags", f"tag {place} is {_shown(tag)}, and none of an entity", advice)
    return _BILOU.get(tag[0], tag[0]) + tag[1:]


def _written(tags: Sequence[str]) -> Counter[str]:
    """Count what tells one way to write tags from another: `ends`, tags that only BIOES has; `open`, entities that
    begin with `I-` or `E-`; `close`, those that begin with `B-` where nothing of their type stands before them."""
    found, begins = Counter[str](), {first for first, *_ in entities(tags)}
    for place, tag in enumerate(tags):
        found["ends"] += tag[0] in "ES"
        if place in begins:
            apart = place == 0 or tags[place - 1][1:] != tag[1:]
            found["open"] += tag[0] in "IE"
            found["close"] += tag[0] == "B" and apart
    return found


def told(seen: Mapping[str, int], at: str) -> list[str]:
    """Say in words how the tags of ``at`` were written, of which ``seen`` are the sums of :attr:`Sentence.seen`;
    nothing of those that are IOB2."""
    notes = []
    if seen["ends"]:
        notes.append(f"{at}: tags are BIOES; they are learnt and scored as IOB2, which says the same")
    if seen["open"] and not seen["close"] and not seen["ends"]:
        notes.append(f"{at}: tags are IOB1; they are learnt and scored as IOB2, which says the same")
    elif seen["open"]:
        begun = f"{seen['open']:,} {'entity begins' if seen['open'] == 1 else 'entities begin'}"
        notes.append(f"{at}: {begun} with a tag that goes on with one; counted as begun there, as conlleval does")
    if seen["widened"]:
        inside = f"{seen['widened']:,} {'span begins or ends' if seen['widened'] == 1 else 'spans begin or end'}"
        notes.append(f"{at}: {inside} inside a word: widened to whole words")
    return notes


def from_spans(text: Any, spans: Any) -> Sentence:
    """Read a text, and its entities as spans of characters: {start, end, label}, or [start, end, label], where `end` is
    the one after the last. Words are runs of letters and digits, and single signs."""
    if not isinstance(text, str):
        raise Unreadable("text", f"text is {_shown(text)}, and no text", "complete the file, or take the row out")
    words = [match.span() for match in _word().finditer(text)]
    if not words:
        raise Unreadable("text", "there is no word", "take the row out")
    spans = parsed(spans)
    if not isinstance(spans, list):
        advice = 'a row has a list of {start, end, label}, in csv as JSON: [{"start": 0, "end": 4, "label": "PER"}]; '
        advice += "it is empty where there are none"
        raise Unreadable("spans", f"spans are {_shown(spans)}, and no list", advice)
    found, seen = list[Entity](), Counter[str]()
    for place, span in enumerate(spans, 1):
        start, end, kind = _span(span, place, text)
        first = sum(own_end <= start for _, own_end in words)
        after = sum(own_start < end for own_start, _ in words)
        if first >= after:
            raise Unreadable("spans", f"span {place} has no word in it: {text[start:end]!r:.40}", "take it out")
        bare = text[start:end]
        kept = (start + len(bare) - len(bare.lstrip()), end - len(bare) + len(bare.rstrip()))
        seen["widened"] += (words[first][0], words[after - 1][1]) != kept
        _count_units(seen, text, start, end, words)
        found.append((first, after, kind))
    found.sort()
    for one, other in pairwise(found):
        if other[0] < one[1]:
            inside = text[words[other[0]][0] : words[min(one[1], other[1]) - 1][1]]
            advice = "a word has one tag: keep one of the two"
            raise Unreadable("spans", f"two spans overlap, or share a word: {inside!r:.40}", advice)
    return Sentence(text, words, tagged(found, len(words)), seen)


def _count_units(seen: Counter[str], text: str, start: int, end: int, words: Sequence[tuple[int, int]]) -> None:
    """Count whether a span would stand elsewhere if it were counted otherwise than in characters, and whether it is by
    either that it cuts words."""
    if text.isascii():
        return
    for unit, ends in zip(UNITS, _ends(text), strict=True):
        if ends[start] == start and ends[end] == end:
            continue
        seen[f"moved {unit}"] += 1
        seen[f"cut {unit}"] += _cuts(start, end, words)
        own = np.searchsorted(ends, (start, end))
        exact = own[1] < len(ends) and (ends[own] == (start, end)).all()
        seen[f"fits {unit}"] += bool(exact) and not _cuts(int(own[0]), int(own[1]), words)


@lru_cache(maxsize=1)
def _ends(text: str) -> tuple[NDArray[np.int64], ...]:
    """Count for each of :data:`UNITS` those before each character, and in all: (characters + 1,). Spans of one text
    follow each other."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    widths = (1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF), 1 + (codes > 0xFFFF))
    return tuple(np.concatenate([[0], np.cumsum(own)]) for own in widths)


def _cuts(start: int, end: int, words: Sequence[tuple[int, int]]) -> bool:
    """Tell whether a span begins or ends inside a word."""
    return any(first < place < after for first, after in words for place in (start, end))


def refuse_units(seen: Mapping[str, int], at: str) -> None:
    """Refuse the spans of ``at`` where they cut words as characters, and hardly any as bytes, or as the units of UTF-16
    in which JavaScript and Java count: they would be learnt a few letters beside themselves."""
    for unit in UNITS:
        moved, cut, fits = (seen[f"{kind} {unit}"] for kind in ("moved", "cut", "fits"))
        if cut >= FEW and fits >= 0.9 * moved:
            otherwise = f"and hardly any would if they were counted in {unit}"
            found = f"{at}: {cut:,} spans begin or end inside a word, {otherwise}"
            raise bad_input("task.spans", found, "count characters, in Python len(text[:start]), and write them anew")


@cache
def _word() -> re.Pattern[str]:
    """Make the pattern of a word: letters and digits, or a single sign, each with the accents, vowel signs and joiners
    behind it, which Python takes for no letters."""
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("M")]
    behind = "".join(map(re.escape, [*marks, "\u200c", "\u200d"]))
    return re.compile(rf"\w[\w{behind}]*|[^\w\s][{behind}]*")


def _span(span: Any, place: int, text: str) -> tuple[int, int, str]:
    """Read one span of ``text``."""
    values = [span.get(key) for key in ("start", "end", "label")] if isinstance(span, dict) else span
    if not isinstance(values, list) or len(values) != 3:
        found = f"span {place} is {_shown(span)}"
        raise Unreadable("spans", found, "give {start, end, label} or [start, end, label]")
    ends = [_whole(value) for value in values[:2]]
    if None in ends:
        found = f"span {place} goes from {_shown(values[0])} to {_shown(values[1])}"
        raise Unreadable("spans", found, "start and end are whole numbers of characters, from 0")
    start, end = (value or 0 for value in ends)
    if not 0 <= start < end <= len(text):
        found = f"span {place} goes from {start} to {end}, and the text has {len(text)} characters"
        advice = "count characters from 0; end is the one after the last"
        if start < end <= len(text.encode("utf-8", "surrogatepass")):
            advice = f"{advice}. It would be inside if it counted bytes"
        raise Unreadable("spans", found, advice)
    kind = values[2]
    if not isinstance(kind, str) or re.fullmatch(r"\S+", kind) is None:
        advice = "a type is text without blanks: write an underscore instead"
        if kind is None:
            advice = "give {start, end, label} or [start, end, label]"
        raise Unreadable("spans", f"span {place} has the label {_shown(kind)}", advice)
    return start, end, kind


def _whole(value: Any) -> int | None:
    """Read a whole number, which lists of text have as text."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shown(value: Any) -> str:
    """Write a value into a message."""
    return "missing" if value is None else "NaN" if value != value else f"{value!r:.40}"


def outside(words: int) -> str:
    """Write the tags of so many words of which none is in an entity."""
    return " ".join([OUTSIDE] * words)


def untagged(data: Dataset, column: str, at: str) -> list[list[str]]:
    """Tag every word of the lists in ``column`` of ``data``, read at recipe path ``at``, as outside of entities."""
    from finetune.data.columns import require_column
    from finetune.data.nested import values_of

    require_column(data, column, at, "task.words")
    found = map(parsed, values_of(data, column))
    return [[OUTSIDE] * len(words) if isinstance(words, list) else [] for words in found]
