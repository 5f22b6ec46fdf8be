"""Mistakes: which labels are taken for which, and the examples that most seeds of most variants fail."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune.core.answers import EXCLUSIVE, NAMED
from finetune.core.numbers import NONE
from finetune.metrics import find, unit
from finetune.metrics.unit import Unit
from finetune.report.blocks import Block, Cell, Column, Fold, Panels, Section, Table, Text
from finetune.report.drawing import label_sets
from finetune.report.drawing.confusion import label_table, matrix, pair_table
from finetune.report.drawing.plots import COLOURS
from finetune.report.sections.answers import IN_TEXT, answer_cells, cut, is_single_numbers, shows_text, text_of
from finetune.report.sections.spans import error_table
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
    """Draw which labels are taken for which, in a classification; of label sets, list what is missed."""
    if found[0].answer == "labels":
        return [Fold(f"How often each label of {task} is found", [label_sets.set_table(found)])]
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
    known = find(metric)
    rows = hardest(-means if known is not None and not known.higher_is_better else means, right_or_wrong)
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
    texts = bool(about) and not withheld and shows_text(found[0].answer)
    if texts:
        columns.append(Column("text", IN_TEXT if found[0].answer == "span" else "", numeric=False))
    if answers:
        said = Column("most often said", "And in how many of the runs", False)
        if is_single_numbers(found):
            said = Column("said", "The median over all runs, and the lowest and the highest", False)
        columns += [Column("wanted", numeric=False), said]
    columns += [Column(each.variant, f"{shown.heading}, mean over runs") for each in found]
    scores, table = [each.score for each in found], []
    for row in rows.tolist():
        number = first["example"][row].as_py()
        own = about.get(number, {})
        cells = [Cell(str(number), cut(own.get("group") or ""))]
        reference = first["reference"][row].as_py()
        cells += [Cell(text_of(found, row, reference, own.get("input", NONE)))] if texts else []
        cells += answer_cells(found, row, reference, own.get("input")) if answers else []
        table.append([*cells, *(Cell(shown.value(float(score[row]))) for score in scores)])
    notes = ["The texts were not kept (scoring.keep_texts: false)."] if withheld else []
    return Table(columns, table, notes, f"Hardest examples of {task}")


def _places(kept: pa.Table, stored: pa.Table, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find where the examples in ``rows`` of a prediction store stand among those that were kept."""
    return np.flatnonzero(np.isin(kept["example"].to_numpy(), stored["example"].to_numpy()[rows]))
