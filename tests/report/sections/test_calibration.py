"""Calibration on the page."""

import xml.etree.ElementTree as ElementTree

import pytest

from finetune.report.blocks import Fold, Panels, Table
from finetune.report.drawing.panels import BOTTOM, LEFT, RIGHT, TOP
from finetune.report.sections.calibration import MEASURES, sections
from finetune.results import calibration
from tests.results.stores import believe, read
from tests.results.test_calibration import spoil


def shown(made):
    """The section, its first table, and the results."""
    study, results = read(made)
    [section] = sections(study, results)
    return section, next(block for block in section.blocks if isinstance(block, Table)), results


def test_every_measure_has_its_column():
    assert tuple(MEASURES) == calibration.MEASURES


def test_no_section_without_probabilities(study):
    assert sections(*read(study)) == []


@pytest.mark.parametrize("column", ["probabilities", "loss"])
def test_probabilities_that_are_not_finite_are_told(sure, column):
    spoil(sure, column)
    assert shown(sure)[1].notes == ["full: 1 of 5 runs gave probabilities that are not finite: left out."]


def test_it_stands_on_the_page(sure):
    section, table, results = shown(sure)
    panels = next(block for block in section.blocks if isinstance(block, Panels))
    assert section.title == "Calibration on test"
    assert [column.title for column in table.columns][:4] == ["variant", "NLL", "Brier", "ECE, %"]
    assert [row[0].text for row in table.rows] == ["lora", "full"]
    full = results.variant("full").calibration["test"]
    assert table.rows[1][1].text == f"{full.nll.mean:.3f}"
    assert table.rows[1][3].text == f"{100 * full.ece.mean:.1f}" and table.rows[1][3].small.startswith("[")
    lora, _ = (ElementTree.fromstring(drawing) for drawing in panels.drawings)
    dots = [dot for dot in lora.iter("circle") if dot.get("class") == "dot"]
    rows = [row for row in results.variant("lora").calibration["test"].reliability if row.seeds]
    assert len(dots) == len(rows) == 2
    for dot, row in zip(dots, rows, strict=True):
        x, y = LEFT + row.confidence * (RIGHT - LEFT), BOTTOM - row.accuracy * (BOTTOM - TOP)
        assert (float(dot.get("cx")), float(dot.get("cy"))) == (pytest.approx(x, abs=0.06), pytest.approx(y, abs=0.06))


def test_other_tasks_are_folded(fabricator):
    made = fabricator([1, 2], {"full": "full"}, tasks=("test", "tweets"))
    for seed in made.seeds:
        made.run("full", seed, 0.8)
        for task in made.tasks:
            believe(made.path / f"full/seed-{seed}", task, 0.8, 0.8, seed)
    folds = [block for block in shown(made)[0].blocks if isinstance(block, Fold)]
    assert [fold.title for fold in folds] == ["What the columns mean", "Calibration on tweets"]


def test_one_seed_has_no_interval(fabricator):
    made = fabricator([1], {"full": "full"})
    made.run("full", 1, 0.8)
    believe(made.path / "full/seed-1", "test", 0.8, 0.8)
    assert {cell.small for cell in shown(made)[1].rows[0]} == {""}
