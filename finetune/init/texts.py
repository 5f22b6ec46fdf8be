"""Which texts of a file are read; and files that hold texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from finetune.init.columns import Column
from finetune.init.evidence import gain
from finetune.init.names import hinting, hints
from finetune.init.relations import ALWAYS, decides, names_it, overlap, overlap_beyond_chance, share_within, siblings
from finetune.init.understood import Understood

ALIKE = 3.0
"""How many times as long as the other one text of a pair may be, by their medians."""
TITLE = 14
"""Words up to which a text beside a much longer one is its heading."""
TELLS = 0.3
"""Gain from which on a text says by itself what is right."""
ENOUGH = 50
"""Rows from which on words that two texts share are no accident."""
JOINED = "joined_text"
PAIRED = ("asked", "answered", "anchor", "positive")
"""What names of columns hint at that are one of a pair."""


@dataclass(frozen=True)
class Reading:
    """How the texts beside an answer are read."""

    options: dict[str, str]
    used: tuple[str, ...]
    made: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def read_texts(columns: Sequence[Column], answer: Sequence[Column]) -> Reading | None:
    """Choose the texts that are read, and how: one, a pair, or several joined. None where there is no text."""
    left: dict[str, str] = {}
    texts = [column for column in columns if column.is_prose and column not in answer]
    if not texts:  # words alone, such as names
        texts = [
            c for c in columns if c.kind == "text" and c not in answer and not (c.is_id or c.is_link or c.is_category)
        ]
        texts = (
            texts or [c for c in columns if c.kind == "text" and c not in answer and c.is_id and c.distinct > 20][:1]
        )
    texts = _without_parts(texts, left)
    texts = _without_leaks(texts, answer, left)
    if not texts:
        return None
    if len(texts) == 1:
        return Reading({"text": texts[0].name}, (texts[0].name,), left=left)
    names = tuple(text.name for text in texts)
    if len(texts) == 2 and _is_pair(texts[0], texts[1], answer):
        return Reading({"text": names[0], "pair": names[1]}, names, left=left)
    template = "\n\n".join(f"{{{name}}}" for name in names)
    return Reading({"text": JOINED}, names, {JOINED: template}, left)


def _is_pair(one: Column, other: Column, answer: Sequence[Column]) -> bool:
    """Tell whether two texts are two that are held against each other, and not a heading and its text, which each say
    something of the answer by themselves."""
    if any({one, other} <= {*group} for group in siblings([one, other])):
        return True
    lengths = sorted(median(len(str(value).split()) for value in column.given) for column in (one, other))
    if lengths[1] <= ALIKE * max(lengths[0], 1) or lengths[0] > TITLE or len(answer) > 1:
        return len(answer) == 1
    told = [gain([column], answer[0], answer[0].kind == "number") for column in (one, other)]
    return max(told) < TELLS


def _without_parts(texts: list[Column], left: dict[str, str]) -> list[Column]:
    """Leave out texts that stand within another one of their row."""
    kept = list(texts)
    for part in sorted(texts, key=lambda column: column.words):
        for whole in kept:
            if whole is part or whole.words < part.words or part not in kept:
                continue
            if share_within(part, whole) >= ALWAYS:
                left[part.name] = f"stands within '{whole.name}'"
                kept.remove(part)
    return kept


def _without_leaks(texts: list[Column], answer: Sequence[Column], left: dict[str, str]) -> list[Column]:
    """Leave out texts that give a label away: that name it in nearly every row, or of which each decides it in many.

    A text that merely tells the label well stays: that is what is to be learnt."""
    [label, *more] = answer
    if more or len(texts) < 2 or label.kind not in ("text", "whole", "flag"):
        return texts
    kept = list(texts)
    for text in texts:
        named = label.kind == "text" and names_it(text, label) >= 0.9
        if len(kept) > 1 and (named or (decides(text, label) and text.distinct < 0.3 * len(text.given))):
            reason = f"names '{label.name}' in nearly every row" if named else f"gives '{label.name}' away"
            left[text.name] = f"{reason}: with it nothing would be left to learn"
            kept.remove(text)
    return kept


def by_text(columns: Sequence[Column], family: str | None) -> Understood | None:
    """Say what texts without an answer are for: to go on with, to be paired, or to learn the language of. ``family`` is
    the model's, `encoder`, `decoder` or `encoder-decoder`, where one is given."""
    left: dict[str, str] = {}
    texts = [column for column in columns if column.kind == "text" and not (column.is_id or column.is_link)]
    texts = [text for text in texts if not text.is_category]
    if not texts:
        texts = [column for column in columns if column.kind == "text" and column.unique > 0.5]
    if not texts:
        return None
    # A heading stands within its text and does not lead to it; what is called a question or an answer is none.
    called = [text for text in texts if any(hints(text, at) for at in PAIRED)]
    whole = _without_parts([text for text in texts if text not in called], left)
    pairs = _pair_of([text for text in texts if text in whole or text in called])
    if pairs is not None:
        return replace(_paired(*pairs, family), left=left)
    text = max(_without_parts(texts, left), key=lambda column: column.words)
    why = f"'{text.name}' is the only text, and nothing says what is right of it"
    same = [column for column in columns if column.given and column.kind == "constant" and hints(column, "label")]
    why += "".join(f": there is one class only, '{column.given[0]}' of '{column.name}'" for column in same[:1])
    return Understood("language", {"text": text.name}, why, (text.name,), left=left)


def _pair_of(texts: Sequence[Column]) -> tuple[Column, Column] | None:
    """The text that is given and the one that follows from it; None where there is no such pair."""
    if len(texts) < 2:
        return None
    answered = hinting(texts, "answered") or hinting(texts, "positive")
    asked = [text for text in hinting(texts, "asked") or hinting(texts, "anchor") if text not in answered]
    if asked and answered:
        return asked[0], answered[0]
    if len(texts) == 2:
        one, two = texts
        if answered and answered[0] is one:
            return two, one
        return one, two
    rest = [text for text in texts if text not in answered]
    return (max(rest, key=lambda column: column.words), answered[0]) if answered else None


def _paired(one: Column, two: Column, family: str | None) -> Understood:
    """Decide what becomes of pairs: a model that writes learns the second text; an encoder learns that both go
    together, which is also what texts of one kind that share their words are for."""
    names, (first, second) = (one.name, two.name), (one.texts, two.texts)
    lengths = sorted([one.words, two.words])
    same_kind = len(one.given) >= ENOUGH and lengths[0] >= 3 and lengths[1] <= 2 * lengths[0]
    same_kind = same_kind and overlap_beyond_chance(first, second) > 0.25
    summary = two.words < 0.5 * one.words and not hints(one, "asked")
    called = hints(one, "anchor") and hints(two, "positive") and not hints(two, "answered")
    if family == "encoder" or (family is None and (called or (same_kind and not hints(two, "answered")))):
        why = f"'{names[0]}' and '{names[1]}' go together"
        why += f": they share {overlap(first, second):.0%} of their words" if same_kind else ""
        return Understood("embedding", {"text": names[0], "pair": names[1]}, why, names)
    if family == "encoder-decoder":
        why = f"'{names[1]}' is written from '{names[0]}', and the model is an encoder-decoder"
        return Understood("seq2seq", {"source": names[0], "target": names[1]}, why, names[:1], names[1:])
    what = "is a shorter text than" if summary else "follows"
    why = f"'{names[1]}' {what} '{names[0]}', and is written by a model that goes on with it"
    return Understood("chat", {"prompt": names[0], "completion": names[1]}, why, names[:1], names[1:])
