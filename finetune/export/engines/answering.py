"""The lines that every engine reads and writes, as `finetune/export/questions.py` describes them; for programs that
import nothing of `finetune`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

Line = dict[str, Any]


def read(questions: str) -> tuple[Line, list[Line]]:
    """The header, and what is asked."""
    with open(questions, encoding="utf-8") as file:
        header, *asked = map(json.loads, file)
    return header, asked


def opening(name: str, packages: Sequence[str], ends: Sequence[int] = ()) -> Line:
    """The first line of the answers: who answers, and at which tokens it stops."""
    return {"kind": "engine", "name": name, "versions": {each: version(each) for each in packages}, "ends": [*ends]}


def write(answers: str, first: Line, asked: Iterable[Line], answer: Callable[[Line], Line]) -> None:
    """Write what ``answer`` says to each question."""
    with open(answers, "w", encoding="utf-8") as file:
        for line in (first, *({"id": each["id"], **answer(each)} for each in asked)):
            file.write(json.dumps(line) + "\n")


def choices(question: Line) -> Iterator[tuple[Line, str]]:
    """Each choice with what it follows; the same choices after the text without content, if there is one, come last."""
    for place in (question, *filter(None, [question.get("free")])):
        yield from ((place, choice) for choice in question["choices"])


def scores(question: Line, likely: Sequence[Sequence[float]]) -> list[float]:
    """The score of each choice, of the log-probabilities of the tokens of :func:`choices`."""
    found = [sum(own) / (len(own) if question.get("mean") else 1) for own in likely]
    count = len(question["choices"])
    free = found[count:] or [0.0] * count
    return [own - other for own, other in zip(found[:count], free, strict=True)]
