"""What was got wrong: which labels are taken for which, and the examples that most seeds of most variants fail."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune.report.blocks import Block, Cell, Column, Fold, Panels, Section, Table, Text
from finetune.report.drawing.confusion import Confusion, confusion, label_table, matrix, pair_table
from finetune.report.drawing.plots import COLOURS
from finetune.report.reading import Run, Study
from finetune.report.units import NONE, Unit, unit

Results = dict[str, Any]

MOST_LABELS = 12
"""Labels that a matrix has room for; of more, the pairs that are most often confused are listed instead."""

MOST_CELLS = 400
"""Cells drawn for one task: of many labels, only the best variants' matrices are."""

MOST_EXAMPLES = 20
"""Examples listed for one task."""

MOST_CHARACTERS = 200
"""Characters shown of a text."""

TEXTS = ("prediction", "reference")

RIGHT = Unit("right", scale=100, decimals=0, suffix="%")


@dataclass(frozen=True, eq=False)
class Answers:
    """What the runs of a variant answered to the n examples of a task, in order of their numbers."""

    variant: str
    colour: int
    stored: list[pa.Table]
    """Each run's prediction store; `prediction` and `reference` are dictionaries."""
    labels: tuple[str, ...]
    """Of a classification, else empty."""

    @property
    def score(self) -> NDArray[np.float64]:
        """(n,) mean over runs of the examples' own scores: for labels the share of runs that are right."""
        return np.mean([table["score"].to_numpy() for table in self.stored], axis=0)

    @property
    def confusion(self) -> Confusion:
        pairs = [tuple(table[name].combine_chunks() for name in TEXTS) for table in self.stored]
        return confusion(self.variant, self.colour, self.labels, [(true, said) for said, true in pairs])

    def said(self, row: int) -> list[str]:
        """What each run answered to the example in ``row``."""
        return [table["prediction"][row].as_py() for table in self.stored]


def section(study: Study, results: Results) -> Section | None:
    """Confusions and hardest examples of every task, the first one's open; None where no run has predictions."""
    blocks: list[Block] = []
    for task in results["tasks"]:
        found = answers_of(study, results, task)
        if found:
            parts = [*_confusions(found, task["name"]), _hardest(study, found, task["name"])]
            blocks += parts if not blocks else [Fold(f"Mistakes on {task['name']}", parts)]
    return Section("mistakes", "What was got wrong", blocks) if blocks else None


def answers_of(study: Study, results: Results, task: Results) -> list[Answers]:
    """What each variant answered, the one with the best mean score first.

    Failed runs that were scored are in it. Runs that scored other rows than the first one's are not, unless each seed
    has a split of its own.
    """
    key, sign = f"{task['name']}/{task['metric']}", -1 if task["higher_is_better"] else 1
    means = {each["name"]: each["estimates"][key]["mean"] for each in results["variants"]}
    found: list[Answers] = []
    for colour, (name, runs) in enumerate(study.variants.items()):
        stored = [table for run in runs if (table := _stored(run, task["name"])) is not None]
        if stored and "split" not in study.vary:
            rows = (found[0].stored if found else stored)[0]["example"]
            stored = [table for table in stored if table["example"].equals(rows)]
        if stored:
            labels = json.loads((stored[0].schema.metadata or {}).get(b"labels", b"[]"))
            found.append(Answers(name, colour, stored, tuple(labels)))
    return sorted(found, key=lambda each: np.inf if means[each.variant] is None else sign * means[each.variant])


def _stored(run: Run, task: str) -> pa.Table | None:
    """What a run has predicted; None without a number for every example, as where a model has diverged."""
    table = run.predictions(task, ["score", *TEXTS], TEXTS)
    return table if table is not None and len(table) and np.isfinite(table["score"].to_numpy()).all() else None


def _confusions(found: list[Answers], task: str) -> list[Block]:
    """Of a classification, which labels are taken for which."""
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
        "a dot is less than half a one. Under each label, its examples."
    )
    if len(every) > room:
        caption += f" Of {len(every)} variants only those with the best scores are drawn."
    return [Panels([matrix(each, f"{each.variant} on {task}", COLOURS) for each in every[:room]], caption), by_label]


def _hardest(study: Study, found: list[Answers], task: str) -> Block:
    title = f"Hardest examples of {task}"
    if "split" in study.vary:
        why = "Each seed has its own held-out examples, so none of them was scored by all."
        return Fold(title, [Text(why, "muted")])
    known: Results = next((each for each in study.data.get("tasks", []) if each["name"] == task), {})
    metric, right_or_wrong = known.get("example_score", "rouge_l"), bool(found[0].labels)
    means = np.stack([answers.score for answers in found])
    rows = hardest(-means if metric == "loss" else means, right_or_wrong)
    if not len(rows):
        return Fold(title, [Text("No example is got wrong by most runs of most variants.")])
    said = "Wrong in more than half of the runs of more than half of the variants" if right_or_wrong else "Worst scores"
    intro = Text(f"{said}; the worst by the mean over variants first.", "muted")
    return Fold(title, [intro, _example_table(study, found, task, rows, RIGHT if right_or_wrong else unit(metric))])


def hardest(means: NDArray[np.float64], right_or_wrong: bool) -> NDArray[np.int64]:
    """Rows of the examples with the lowest mean over variants, the worst first, at most :data:`MOST_EXAMPLES`.

    ``means`` (variants, examples) over runs; more is better. Where an answer is ``right_or_wrong``, only of examples
    that more than half of the variants get wrong in more than half of their runs.
    """
    order = np.argsort(means.mean(axis=0), kind="stable")
    if right_or_wrong:
        order = order[((means < 0.5).sum(axis=0) > len(means) / 2)[order]]
    return order[:MOST_EXAMPLES]


def _example_table(study: Study, found: list[Answers], task: str, rows: NDArray[np.int64], shown: Unit) -> Table:
    """The examples in ``rows``: texts where they were kept, what was wanted, what was said instead, and scores."""
    first, kept = found[0].stored[0], study.examples(task)
    withheld = kept is not None and kept["input"].null_count > 0
    about = (
        {} if kept is None else {each["example"]: each for each in kept.take(_places(kept, first, rows)).to_pylist()}
    )
    # A label is no text to be kept to oneself; where nothing is answered (language modelling), nothing is wanted.
    answers = any(first["reference"].combine_chunks().dictionary.to_pylist()) and bool(found[0].labels or not withheld)
    columns = [Column("example", "Its number in the tables of predictions/ and examples/; under it its group, if any")]
    if about and not withheld:
        columns.append(Column("text", numeric=False))
    if answers:
        columns += [Column("wanted", numeric=False), Column("most often said", "And in how many of the runs", False)]
    columns += [Column(each.variant, f"{shown.heading}, mean over runs") for each in found]
    scores, table = [each.score for each in found], []
    for row in rows.tolist():
        number = first["example"][row].as_py()
        own = about.get(number, {})
        cells = [Cell(str(number), cut(own.get("group") or ""))]
        cells += [Cell(cut(own.get("input", NONE)))] if about and not withheld else []
        cells += _answer_cells(found, row, first["reference"][row].as_py()) if answers else []
        table.append([*cells, *(Cell(shown.value(float(score[row]))) for score in scores)])
    notes = ["The texts were not kept (scoring.keep_texts: false)."] if withheld else []
    return Table(columns, table, notes, f"Hardest examples of {task}")


def _places(kept: pa.Table, stored: pa.Table, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the examples in ``rows`` of a prediction store stand among those that were kept."""
    return np.flatnonzero(np.isin(kept["example"].to_numpy(), stored["example"].to_numpy()[rows]))


def _answer_cells(found: list[Answers], row: int, wanted: str) -> list[Cell]:
    """What was wanted, and what the runs said most often instead; of equally many, the first in the alphabet."""
    said = [text for answers in found for text in answers.said(row)]
    counts = Counter(text for text in said if text != wanted)
    if not counts:
        return [Cell(cut(wanted)), Cell(NONE)]
    text, times = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [Cell(cut(wanted)), Cell(cut(text) or "nothing", f"{times} of {len(said)}")]


def cut(text: str) -> str:
    """``text`` on one line, its beginning where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"
