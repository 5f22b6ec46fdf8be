"""Sets of labels for people: an answer beside what was wanted, and how often each label is missing or superfluous."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from finetune.core.label_sets import difference, read
from finetune.core.numbers import NONE, count, share
from finetune.report.blocks import Cell, Column, Table
from finetune.results.mistakes import Answers

MOST_ROWS = 50
"""Labels listed."""


def in_words(text: str) -> str:
    """Write a stored set for a reader."""
    return ", ".join(read(text)) or "no label"


def apart(said: str, wanted: str) -> str:
    """Tell what one stored set is missing of another, and what is superfluous in it."""
    missing, more = difference(read(said), read(wanted))
    parts = [("missing", missing), ("superfluous", more)]
    return "; ".join(f"{name}: {', '.join(labels)}" for name, labels in parts if labels)


def set_table(found: Sequence[Answers]) -> Table:
    """Tell for each label how often it is found where it is wanted, and said where it is not; the most mistakes
    first."""
    tallies = [_tally(answers) for answers in found]
    wanted = tallies[0][0]
    mistakes = Counter[str]()
    for own, missed, more in tallies:
        for label in {*own, *more}:
            mistakes[label] += missed[label] + more[label]
    columns = [Column("label", numeric=False), Column("examples")]
    columns += [
        Column(each.variant, "Share of them that is found; under it, how many others get the label: means over seeds")
        for each in found
    ]
    rows = []
    listed = sorted({*mistakes, *wanted}, key=lambda label: (-mistakes[label], label))
    for label in listed[:MOST_ROWS]:
        cells = [
            Cell(
                share(wanted[label] - missed[label] / runs, wanted[label]) if wanted[label] else NONE,
                f"and {count(more[label] / runs)} others" if more[label] else "",
            )
            for (_, missed, more), runs in zip(tallies, (len(each.stored) for each in found), strict=True)
        ]
        rows.append([Cell(label), Cell(count(wanted[label])), *cells])
    left = len(listed) - len(rows)
    return Table(columns, rows, [f"{count(left)} more labels are less often wrong."] if left else [])


def _tally(answers: Answers) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Count by label the examples of the first run that have it, and over all runs those where it is missing, and where
    it is superfluous."""
    missed, more = Counter[str](), Counter[str]()
    for table in answers.stored:
        pairs = zip(table["prediction"].to_pylist(), table["reference"].to_pylist(), strict=True)
        for (said, true), times in Counter(pairs).items():
            absent, superfluous = difference(read(said), read(true))
            _add(missed, absent, times)
            _add(more, superfluous, times)
    wanted = Counter(label for text in answers.stored[0]["reference"].to_pylist() for label in read(text))
    return wanted, missed, more


def _add(counter: Counter[str], labels: Iterable[str], times: int) -> None:
    for label in labels:
        counter[label] += times
