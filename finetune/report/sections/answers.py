"""How an example and its answers are shown, each kind in its own form: entities marked in their words, spans in their
text, label sets by what they lack, numbers by their median."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from finetune.core.answers import spans_in
from finetune.core.numbers import MINUS, NONE
from finetune.report.blocks import Cell
from finetune.report.drawing import label_sets
from finetune.report.sections import entities, spans
from finetune.results.mistakes import Answers

MOST_CHARACTERS = 200
"""Characters shown of a text."""

IN_TEXT = "The wanted answer in [brackets], what is most often said instead in {braces}"


def shows_text(answer: str | None) -> bool:
    """Tell whether an example's text has a column of its own; tags are shown in it."""
    return answer != "tags"


def text_of(found: list[Answers], row: int, reference: str, text: str) -> str:
    """Show the text of an example; of one whose answer is a part of it, what is around that."""
    if found[0].answer != "span":
        return cut(text)
    said, _, _ = _said_instead(found, row, reference)
    return " ".join(spans.marked(text, reference, said or "").split())


def answer_cells(found: list[Answers], row: int, wanted: str, given: str | None) -> list[Cell]:
    """Show what was wanted, and what the runs said most often instead. Of tags, in the words that were ``given``, where
    these were kept."""
    answer = found[0].answer
    text, times, runs = _said_instead(found, row, wanted)
    small = f"{times} of {runs}" if times else ""
    if is_single_numbers(found):
        said = [each for answers in found for each in answers.said(row)]
        return [Cell(cut(wanted)), Cell(NONE) if text is None else _middle(said)]
    if answer == "tags":
        one, other = entities.marked(given, wanted, text or wanted), entities.marked(given, text or wanted, wanted)
        return [one, Cell(NONE) if text is None else replace(other, small=small)]
    first = {"span": spans.wanted_of, "labels": label_sets.in_words}.get(str(answer), str)(wanted)
    if text is None:
        return [Cell(cut(first)), Cell(NONE)]
    shown = f"{label_sets.in_words(text)} ({label_sets.apart(text, wanted)})" if answer == "labels" else text
    return [Cell(cut(first)), Cell(cut(shown) or (spans.SILENT if answer == "span" else "nothing"), small)]


def is_single_numbers(found: list[Answers]) -> bool:
    """Tell whether each answer is a number, and not several."""
    if found[0].answer != "number":
        return False
    try:
        float(found[0].stored[0]["reference"][0].as_py())
    except ValueError:
        return False
    return True


def _said_instead(found: list[Answers], row: int, reference: str) -> tuple[str | None, int, int]:
    """Find what the runs said most often that was not wanted (of equally many, the first in the alphabet; None: all
    said what was), in how many of them, and of how many."""
    right = (spans_in(reference) or [""]) if found[0].answer == "span" else [reference]
    said = [text for answers in found for text in answers.said(row)]
    counts = Counter(text for text in said if text not in right)
    if not counts:
        return None, 0, len(said)
    text, times = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return text, times, len(said)


def _middle(said: list[str]) -> Cell:
    """Show the median of the numbers that runs said, of which hardly two are equal, and the lowest and the highest."""
    numbers = np.array([float(text) for text in said])
    middle, low, high = (f"{value:.4g}".replace("-", MINUS) for value in np.quantile(numbers, (0.5, 0, 1)))
    return Cell(middle, f"from {low} to {high}")


def cut(text: str) -> str:
    """Put ``text`` on one line, cut after its beginning where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"
