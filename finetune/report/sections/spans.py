"""Answers that are parts of a text, among what models get wrong: errors by kind of question, and places in texts."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.core.answers import spans_in
from finetune.metrics.unit import Unit
from finetune.report.blocks import Block, Cell, Column, Table
from finetune.results.mistakes import Answers
from finetune.results.reading import Study
from finetune.results.spans import error_of, kinds_of, references_of

ERROR = Unit("error", scale=100, decimals=1, suffix="%")
AROUND = 60
"""Characters shown before and behind what is marked."""
MOST = 400
"""Characters shown of a text between two marks; farther apart, the wanted answer alone is."""
SILENT = "no answer"


def error_table(study: Study, found: Sequence[Answers], task: str) -> list[Block]:
    """Tabulate each variant's errors on questions with and without an answer, and by the answer's length; nothing where
    runs have other examples than each other."""
    if "split" in study.vary:
        return []
    kinds = kinds_of(references_of(found[0]))
    columns = [Column("right answer", numeric=False), Column("questions")]
    about = "1 less F1, mean over runs; under it its 95 % interval over new seeds and new examples"
    columns += [Column(f"{each.variant}, error %", about) for each in found]
    rows = []
    for name, own in kinds.items():
        cells = [Cell(name), Cell(str(int(own.sum())))]
        for each in found:
            at = error_of(each, own)
            cells.append(Cell(ERROR.number(at.error), ERROR.interval(at.interval)))
        rows.append(cells)
    return [Table(columns, rows, _thresholds(study, found), f"Errors on {task} by the right answer")]


def _thresholds(study: Study, found: Sequence[Answers]) -> list[str]:
    """Say what the validation split has decided for each variant's runs."""
    said = []
    for each in found:
        every = [run.result.get("decision") or {} for run in study.variants[each.variant]]
        values = sorted(own["threshold"] for own in every if "threshold" in own)
        if values:
            ends = dict.fromkeys(f"{value:.2f}" for value in (values[0], values[-1]))
            said.append(f"{each.variant} {' to '.join(ends)}")
    rule = "A span is said where it is likelier than no answer by more than a threshold, in nats"
    return [f"{rule}, which each run has chosen by its validation examples: {', '.join(said)}."] if said else []


def wanted_of(reference: str) -> str:
    """Write the right answers for people."""
    return " / ".join(spans_in(reference)) or SILENT


def marked(text: str, reference: str, said: str) -> str:
    """Show a question, and of its text what is around the wanted answer, in [brackets], and the one that was said, in
    {braces}. ``text`` is the question and, a blank line below, its context."""
    question, _, context = text.partition("\n\n")
    wanted = next(iter(spans_in(reference)), "")
    places = [
        (context.find(words), len(words), *marks)
        for words, marks in ((wanted, "[]"), (said, "{}"))
        if words and words in context
    ]
    if places and max(at + size for at, size, *_ in places) - min(at for at, *_ in places) > MOST:
        places = places[:1]
    first = max(min((at for at, *_ in places), default=0) - AROUND, 0)
    last = max((at + size for at, size, *_ in places), default=AROUND) + AROUND
    # From the back, so that nothing that is still to come is moved; at one place what ends stands before what begins.
    marks = [(at + size, 0, close) for at, size, _, close in places] + [(at, 1, begin) for at, _, begin, _ in places]
    shown = context[:last]
    for at, _, mark in sorted(marks, reverse=True):
        shown = shown[:at] + mark + shown[at:]
    shown = shown[first:]
    return f"{question} {'…' * (first > 0)}{shown}{'…' * (last < len(context))}"
