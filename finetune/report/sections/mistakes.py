"""Mistakes: which labels are taken for which, and the examples that most seeds of most variants fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune.core.answers import EXCLUSIVE, NAMED, spans_in
from finetune.core.numbers import NONE
from finetune.metrics import unit
from finetune.metrics.unit import Unit
from finetune.report.blocks import Block, Cell, Column, Fold, Panels, Section, Table, Text
from finetune.report.drawing.confusion import label_table, matrix, pair_table
from finetune.report.drawing.plots import COLOURS
from finetune.report.sections.spans import SILENT, error_table, marked, wanted_of
from finetune.results.mistakes import Answers, answers_of, hardest
from finetune.results.reading import Study
from finetune.results.schema import Results

MOST_LABELS = 12
"""Labels that a matrix has room for; of more, the pairs that are most often confused are listed instead."""

MOST_CELLS = 400
"""Cells drawn for one evaluation set: of many labels, only the best variants' matrices are."""

MOST_CHARACTERS = 200
"""Characters shown of a text."""

RIGHT = Unit("right", scale=100, decimals=0, suffix="%")


def sections(study: Study, results: Results) -> list[Section]:
    """Write confusions and hardest examples of each evaluation set, the first's open; none without predictions."""
    blocks: list[Block] = []
    colours = {name: index % COLOURS for index, name in enumerate(study.variants)}
    for task in results.tasks:
        found = answers_of(study, results, task)
        if found:
            spans = error_table(study, found, task.name) if found[0].answer == "span" else []
            parts = [*_confusions(found, task.name, colours), *spans, _hardest(study, found, task.name)]
            blocks += parts if not blocks else [Fold(f"Mistakes on {task.name}", parts)]
    return [Section("mistakes", "What the models get wrong", blocks)] if blocks else []


def _confusions(found: list[Answers], task: str, colours: Mapping[str, int]) -> list[Block]:
    """Draw which labels are taken for which, in a classification."""
    labels = found[0].labels
    if not labels:
        return []
    every = [answers.confusion for answers in found if answers.labels == labels]
    by_label = Fold(f"How often each label of {task} is right", [label_table(every)])
    if len(labels) > MOST_LABELS:
        intro = f"What is most often taken for something else on {task}, of {len(labels)} labels."
        return [Text(intro, "muted"), pair_table(every), by_label]
    room = max(1, MOST_CELLS // len(labels) ** 2)
    caption = (
        f"Of 100 examples of {task} with the label at the left, how many are given the label above: mean over seeds; "
        "a dot is more than none and less than half an example. In brackets: how many examples have the label."
    )
    if len(every) > room:
        caption += f" Of {len(every)} variants only those with the best scores are drawn."
    drawn = [matrix(each, f"{each.variant} on {task}", colours[each.variant]) for each in every[:room]]
    return [Panels(drawn, caption), by_label]


def _hardest(study: Study, found: list[Answers], task: str) -> Block:
    title = f"Hardest examples of {task}"
    if "split" in study.vary:
        why = "Each seed has its own held-out examples, so none of them was scored by all."
        return Fold(title, [Text(why, "muted")])
    metric, right_or_wrong = study.facts(task).get("example_score", "rouge_l"), found[0].answer in EXCLUSIVE
    means = np.stack([answers.score for answers in found])
    rows = hardest(-means if metric == "loss" else means, right_or_wrong)
    if not len(rows):
        return Fold(title, [Text("No example is got wrong by most runs of most variants.")])
    said = "Wrong in more than half of the runs of more than half of the variants" if right_or_wrong else "Worst scores"
    intro = Text(f"{said}; the worst by the mean over variants first.", "muted")
    return Fold(title, [intro, _example_table(study, found, task, rows, RIGHT if right_or_wrong else unit(metric))])


def _example_table(study: Study, found: list[Answers], task: str, rows: NDArray[np.int64], shown: Unit) -> Table:
    """The examples in ``rows``: texts where they were kept, what was wanted, what was said instead, and scores."""
    first, kept = found[0].stored[0], study.examples(task)
    withheld = kept is not None and kept["input"].null_count > 0
    about = (
        {} if kept is None else {each["example"]: each for each in kept.take(_places(kept, first, rows)).to_pylist()}
    )
    # A label is no text to be kept to oneself; where nothing is answered (language modelling), nothing is wanted.
    told = found[0].answer in NAMED or not withheld
    answers = told and any(first["reference"].combine_chunks().dictionary.to_pylist())
    columns = [Column("example", "Its number in the tables of predictions/ and examples/; under it its group, if any")]
    if about and not withheld:
        marks = "The wanted answer in [brackets], what is most often said instead in {braces}"
        columns.append(Column("text", marks if found[0].answer == "span" else "", numeric=False))
    if answers:
        columns += [Column("wanted", numeric=False), Column("most often said", "And in how many of the runs", False)]
    columns += [Column(each.variant, f"{shown.heading}, mean over runs") for each in found]
    scores, table = [each.score for each in found], []
    for row in rows.tolist():
        number = first["example"][row].as_py()
        own = about.get(number, {})
        cells = [Cell(str(number), cut(own.get("group") or ""))]
        reference = first["reference"][row].as_py()
        cells += [Cell(_text(found, row, reference, own.get("input", NONE)))] if about and not withheld else []
        cells += _answer_cells(found, row, reference) if answers else []
        table.append([*cells, *(Cell(shown.value(float(score[row]))) for score in scores)])
    notes = ["The texts were not kept (scoring.keep_texts: false)."] if withheld else []
    return Table(columns, table, notes, f"Hardest examples of {task}")


def _places(kept: pa.Table, stored: pa.Table, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find where the examples in ``rows`` of a prediction store stand among those that were kept."""
    return np.flatnonzero(np.isin(kept["example"].to_numpy(), stored["example"].to_numpy()[rows]))


def _text(found: list[Answers], row: int, reference: str, text: str) -> str:
    """Show the text of an example; of one whose answer is a part of it, what is around that."""
    if found[0].answer != "span":
        return cut(text)
    said, _, _ = _said_instead(found, row, reference)
    return " ".join(marked(text, reference, said or "").split())


def _answer_cells(found: list[Answers], row: int, reference: str) -> list[Cell]:
    """Show what was wanted, and what the runs said most often instead."""
    span = found[0].answer == "span"
    wanted = Cell(cut(wanted_of(reference) if span else reference))
    text, times, runs = _said_instead(found, row, reference)
    if text is None:
        return [wanted, Cell(NONE)]
    return [wanted, Cell(cut(text) or (SILENT if span else "nothing"), f"{times} of {runs}")]


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


def cut(text: str) -> str:
    """Put ``text`` on one line, cut after its beginning where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"
