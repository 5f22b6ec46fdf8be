"""Files in which a column says what is right of a text: labels, sets of labels, numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune.init.columns import Column
from finetune.init.evidence import gain, ordered
from finetune.init.names import hints
from finetune.init.relations import decides, says_the_same
from finetune.init.texts import Reading, read_texts
from finetune.init.understood import Understood

SEPARATORS = ("|", ";", ", ", ",", " / ")
MOST_LABELS = 1000
FEW_LEVELS = 11
"""Levels, as on a scale from 0 to 10, up to which ordered whole numbers are labels with an order, and beyond which they
are numbers; as many that are in no order are codes of classes, whatever they are."""
CLEAR = 3.0
"""SDs from chance from which on numbers count as ordered."""
FAR = 1.5
"""SDs from which on a few numbers with gaps between them do: three cannot be as far."""
TOLD = 0.1
"""Gain from which on a text tells an answer."""


@dataclass(frozen=True)
class Answer:
    """A column, or several, that may say what is right."""

    columns: tuple[Column, ...]
    task: str
    score: float
    gained: float
    separator: str | None = None
    is_ordered: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def by_answer(columns: Sequence[Column], wanted: Sequence[str] = ()) -> Iterator[Understood]:
    """Yield what the columns are by an answer beside texts, the likeliest first; ``wanted`` names the answer's."""
    found = sorted(_candidates(columns), key=lambda each: -each.score)
    if wanted:
        found = [each for each in found if each.names == tuple(wanted)]
    for each in found:
        reading = read_texts(columns, each.columns)
        if reading is not None:
            yield _understood(columns, each, reading)


def _candidates(columns: Sequence[Column]) -> Iterator[Answer]:
    texts = [column for column in columns if column.is_prose]
    flags = [column for column in columns if column.kind == "flag"]
    if len(flags) >= 3:
        sums = Counter(sum(map(bool, row)) for row in zip(*(column.values for column in flags), strict=True))
        if len(sums) > 1:  # else exactly one each: still a set, of one label
            yield Answer(tuple(flags), "multi-label-classification", 1.0, 0.0)
    for column in columns:
        if column.kind == "lists" and _small(column.lists):
            yield Answer((column,), "multi-label-classification", 1.0 + _named(column, "label"), 0.0)
        elif column.kind == "text" and (mark := separator_of(column)):
            yield Answer((column,), "multi-label-classification", 0.9 + _named(column, "label"), 0.0, mark)
        elif column.is_index or column.kind in ("constant", "time") or (column.kind == "flag" and len(flags) >= 3):
            continue
        elif column.kind in ("number", "whole", "flag") or column.is_category:
            yield from _single(columns, column, texts)


def _single(columns: Sequence[Column], column: Column, texts: Sequence[Column]) -> Iterator[Answer]:
    """Take a column as labels, or as numbers."""
    others = [text for text in texts if text is not column]
    copies = [each for each in columns if each is not column and each.is_category and says_the_same(column, each)]
    if any(each.kind == "text" for each in copies) and column.kind != "text":
        return  # codes of labels that have names in another column
    last = 0.05 if column is columns[-1] else 0.0
    if column.kind == "text" or column.kind == "flag":
        told = gain(others, column, numeric=False)
        yield Answer((column,), "classification", _score(column, told, "label") + last, told)
    elif column.kind == "number":
        told = gain(others, column, numeric=True)
        yield Answer((column,), "regression", _score(column, told, "number") + last, told)
    elif not column.is_id or hints(column, "number"):
        yield _whole(column, others, last)


def _whole(column: Column, texts: Sequence[Column], last: float) -> Answer:
    """Decide whether whole numbers are codes of classes, steps of a scale, or numbers."""
    told = gain(texts, column, numeric=False) if column.is_category else 0.0
    as_number = gain(texts, column, numeric=True)
    levels = sorted({int(value) for value in column.given})
    gapless = levels[-1] - levels[0] + 1 == len(levels)
    if len(levels) == 2:
        return Answer((column,), "classification", _score(column, told, "label") + last, told)
    apart = ordered(texts, column) if column.is_category and len(levels) <= MOST_LABELS else 0.0
    called = 2.0 * hints(column, "ordered") - 2.0 * hints(column, "code")
    few = column.is_category and len(levels) <= FEW_LEVELS
    spread = not gapless and apart + called > (FAR if few and not called else 0)
    in_order = apart + called >= CLEAR or spread or (called > 0 and apart > -1)
    scale = len(levels) <= FEW_LEVELS and levels[0] >= -5 and levels[-1] <= 10
    codes = column.is_category and (called < 0 or few or (levels[0] in (0, 1) and levels[-1] < 1.5 * len(levels)))
    if in_order and scale and column.is_category:
        return Answer((column,), "classification", _score(column, told, "label") + last, told, is_ordered=True)
    if codes and not in_order:
        return Answer((column,), "classification", _score(column, told, "label") + last, told)
    return Answer((column,), "regression", _score(column, as_number, "number") + last, as_number)


def _named(column: Column, at: str) -> float:
    return 0.3 * hints(column, at) - 0.4 * hints(column, "about")


def _score(column: Column, told: float, at: str) -> float:
    """How likely a column is the answer: by what the texts tell of it, and a little by its name."""
    tiny = 0.2 if column.kind == "number" and column.distinct > 0.9 * len(column.given) else 0.0
    return min(told, 0.8) + _named(column, at) + 0.1 - tiny


def _small(lists: Sequence[list[str]]) -> bool:
    """Tell whether lists are sets out of not many labels, and not words of a text or turns of a conversation."""
    counts = Counter(item for value in lists for item in value)
    repeated = any(len({*value}) < len(value) for value in lists)
    total, short = sum(counts.values()), all(len(item.split()) <= 5 for item in counts)
    return bool(counts) and short and len(counts) <= min(MOST_LABELS, total / 3) and not repeated


def separator_of(column: Column) -> str | None:
    """Find what stands between labels in a column's texts; None where it holds no sets of labels."""
    values = [str(value) for value in column.given]
    for mark in SEPARATORS:
        several = sum(mark in value for value in values)
        if several < 0.1 * len(values):
            continue
        sets = [[item.strip() for item in value.split(mark) if item.strip()] for value in values]
        whole, items = {*values}, {item for each in sets for item in each}
        if len(items) < len(whole) and _small(sets) and len(items) <= max(0.1 * len(values), 12):
            return mark
    return None


def _understood(columns: Sequence[Column], answer: Answer, reading: Reading) -> Understood:
    left = dict(reading.left)
    [first, *_] = answer.columns
    for other in columns:
        if other not in answer.columns and other.name not in reading.used and other.kind in ("text", "whole", "flag"):
            if says_the_same(other, first):
                left[other.name] = f"says the same as '{first.name}'"
            elif decides(other, first):
                left[other.name] = f"says what '{first.name}' is: with it nothing would be left to learn"
    options: dict[str, object] = dict(reading.options)
    why = f"'{', '.join(answer.names)}' "
    if answer.task == "multi-label-classification":
        options["labels"] = answer.names[0] if len(answer.columns) == 1 else list(answer.names)
        options |= {"separator": answer.separator} if answer.separator else {}
        why += "holds several labels of one text" if len(answer.columns) == 1 else "are yes or no, each by itself"
    elif answer.task == "regression":
        options["target"] = first.name
        numbers = [float(value) for value in first.given]
        why += f"holds numbers from {min(numbers):g} to {max(numbers):g}, {first.distinct:,} different ones"
    else:
        options["label"] = first.name
        options |= {"ordinal": True} if answer.is_ordered else {}
        why += f"has {first.distinct:,} values for {len(first.given):,} texts"
        why += ": steps of a scale, since mistakes go to neighbours" if answer.is_ordered else ""
    if answer.gained >= TOLD:
        why += f"; words of the texts tell it ({answer.gained:.0%} of the way from always saying the same)"
    return Understood(answer.task, options, why, reading.used, answer.names, reading.made, left=left)
