"""Answers that are parts of a text: how data write them, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.core.errors import bad_input
from finetune.data.json_text import listed, parsed

if TYPE_CHECKING:
    from datasets import Dataset


class Span(NamedTuple):
    """A part of a text."""

    start: int
    """Its first character."""
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class Question(NamedTuple):
    """The contents of one row."""

    question: str
    context: str
    answers: list[Span]
    """All that count as right; empty where the context does not answer."""
    repeated: bool = False
    """True where it is not said where the answer stands, and it stands in several places: the first is taken."""


def questions_of(data: Dataset, options: Any, at: str) -> Iterator[Question]:
    """Read each row of ``data``, which comes from recipe path ``at``, from the columns that ``options`` name. Raises
    :class:`InputError`, with the row, for a question or context without words, and for answers that do not fit."""
    from finetune.data.nested import values_of
    from finetune.data.rows import places_of

    texts = (data[options.question][:], data[options.context][:])
    for question, context, answers, where in zip(
        *texts, values_of(data, options.answers), places_of(data, at), strict=True
    ):
        for name, text in (("question", question), ("context", context)):
            if not text.strip():
                found = f"{where} has an empty {name}"
                raise bad_input(f"task.{name}", found, "complete the file, or take this row out of it")
        said = list(_said(answers, where))
        spans = [_span(text, start, context, where) for text, start in said]
        repeated = any(start is None and context.count(text) > 1 for text, start in said)
        yield Question(question, context, spans, repeated)


def _said(value: Any, where: str) -> Iterator[tuple[str, int | None]]:
    """Yield the texts of the answers in a row, each with its first character where the row says it."""
    if value is None or value == "":
        return
    value = _unpacked(value)
    if isinstance(value, str):
        yield value, None
        return
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        texts, starts = (entry, None) if isinstance(entry, str) else _columns(entry, where)
        texts = texts if isinstance(texts, list) else [texts]
        starts = [None] * len(texts) if starts is None else starts if isinstance(starts, list) else [starts]
        if len(starts) != len(texts):
            found = f"{where} has {len(texts)} answers and {len(starts)} places where they begin"
            raise bad_input("task.answers", found, "give each answer its own answer_start, or none of them")
        for text, start in zip(texts, starts, strict=True):
            whole = start is None or (isinstance(start, int) and not isinstance(start, bool))
            if not isinstance(text, str) or not text.strip() or not whole:
                found = f"{where} has the answer {text!r:.60}, which begins at {start!r:.20}"
                raise bad_input("task.answers", found, "an answer is a text with words, and begins at a whole number")
            yield text, start


def _unpacked(value: Any) -> Any:
    """Read answers that a csv file has as JSON text; any other text is an answer by itself."""
    found = listed(listed(value), dict)
    if isinstance(found, str) and found.lstrip().startswith("{"):
        found = parsed(found)
        found = found if isinstance(found, dict) and "text" in found else value
    return found


def _columns(entry: Any, where: str) -> tuple[Any, Any]:
    if not isinstance(entry, dict) or (entry and "text" not in entry):
        found = f"{where} has answers that are neither text nor {{text: [...], answer_start: [...]}}: {entry!r:.60}"
        raise bad_input("task.answers", found, "write them as the hub's squad does, or as plain text")
    return entry.get("text", []), entry.get("answer_start")


def _span(text: str, start: int | None, context: str, where: str) -> Span:
    """Find an answer in its context."""
    if start is None:
        text = text.strip()
        if text not in context:
            found = f"{where} has the answer {text!r:.60}, which is not in its context"
            advice = "an answer is a part of the context, letter by letter"
            if re.match(r"\s*[\[{]", text):
                advice = 'write answers in csv as text or as JSON: {"text": ["a"], "answer_start": [0]}'
            raise bad_input("task.answers", found, advice)
        return Span(context.index(text), text)
    if start < 0 or context[start : start + len(text)] != text:
        there = context[max(start, 0) : max(start, 0) + len(text)]
        found = f"{where} has the answer {text!r:.60} at character {start}, where {there!r:.60} stands"
        raise bad_input(
            "task.answers", found, "characters of the context count from 0; correct answer_start or leave it out"
        )
    return Span(start, text)
