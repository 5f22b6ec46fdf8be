"""In-domain against shifted, on the page: drops, spreads, and a line per seed."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from finetune.report.blocks import Panels, Table
from finetune.report.drawing.panels import BOTTOM, TOP
from finetune.report.sections.domains import sections
from tests.fabricated import with_variant
from tests.results.stores import SCORES


def blocks(study, results, kind):
    [section] = sections(study, results)
    return [block for block in section.blocks if isinstance(block, kind)]


def test_seeds_without_both_scores_are_not_in_the_drop(shifted):
    [table] = blocks(*shifted(scores={**SCORES, 3: (0.92, None)}), Table)
    assert table.rows[1][3].text == "+15.0"


@pytest.mark.parametrize("tasks", [("test",), ("tweets", "reviews")])
def test_one_kind_of_data_has_no_section(shifted, tasks):
    study, results = shifted(tasks=tasks, scores={seed: pair[: len(tasks)] for seed, pair in SCORES.items()})
    assert sections(study, results) == []


def test_a_task_with_another_headline_is_not_compared(shifted):
    study, results = shifted()
    inside, other = results.tasks
    assert sections(study, replace(results, tasks=[inside, replace(other, metric="nll")])) == []


def test_the_table_shows_scores_drops_and_spreads(shifted):
    study, results = shifted()
    [table] = blocks(study, results, Table)
    assert [column.title for column in table.columns][:5] == ["variant", "data", "accuracy, %", "drop", "SD"]
    inside, shifted = table.rows
    written = [[cell.text for column, cell in enumerate(row) if column != 5] for row in table.rows]
    assert written[0] == ["full", "test", "91.0", "–", "1.00", "90.0", "92.0"]
    assert written[1] == ["full", "tweets", "71.0", "+20.0", "9.00", "62.0", "80.0"]
    # the chi-square interval of an SD from three seeds: times 0.5207 and 6.2847, from a printed table
    assert inside[4].small == "[0.52, 6.28]" and shifted[3].small == "[\N{MINUS SIGN}4.8, +44.8]"
    assert shifted[3].tone == "", "the interval holds zero"


@pytest.mark.parametrize(("inside", "outside", "tone"), [(0.9, 0.7, "bad"), (0.7, 0.9, "good")])
def test_a_clear_drop_is_marked(shifted, inside, outside, tone):
    [table] = blocks(*shifted(scores={seed: (inside + seed / 100, outside) for seed in (1, 2, 3)}), Table)
    assert table.rows[1][3].tone == tone


def test_a_line_per_seed_from_score_to_score(shifted):
    study, results = shifted()
    [panels] = blocks(study, results, Panels)
    [panel] = [ElementTree.fromstring(drawing) for drawing in panels.drawings]
    lines = [line.get("points").split() for line in panel.iter("polyline")]
    assert len(lines) == 3 and all(len(line) == 2 for line in lines)
    low, high = 62 - 0.05 * 30, 92 + 0.05 * 30
    for line, pair in zip(lines, SCORES.values(), strict=True):
        for point, score in zip(line, pair, strict=True):
            wanted = BOTTOM - (100 * score - low) / (high - low) * (BOTTOM - TOP)
            assert float(point.split(",")[1]) == pytest.approx(wanted, abs=0.06)
    titles = [title.text.replace("\u202f", " ") for title in panel.iter("title")]
    assert "full, seed 2: 91.0 % on test, 71.0 % on tweets" in titles
    assert {"test", "tweets"} <= {text.text for text in panel.iter("text")}
    assert len([mean for mean in panel.iter("line") if mean.get("class") == "mean"]) == 2


def test_a_failed_run_is_crossed(shifted):
    study, results = shifted()
    *others, last = results.variant("full").runs
    failed = with_variant(results, "full", runs=[*others, replace(last, status="degenerate")])
    [panels] = blocks(study, failed, Panels)
    panel = ElementTree.fromstring(panels.drawings[0])
    assert sum(element.get("class") == "failed" for element in panel.iter("g")) == 2
    assert sum(element.get("class") == "dot" for element in panel.iter("circle")) == 4


def test_the_base_model_has_a_row_and_no_panel(shifted):
    study, results = shifted(base=(0.5, 0.45))
    [table] = blocks(study, results, Table)
    [panels] = blocks(study, results, Panels)
    base = [row for row in table.rows if row[0].text == "base"]
    assert [row[3].text for row in base] == ["–", "+5.0"] and base[1][3].small == "" and base[0][0].colour is None
    assert len(panels.drawings) == 1


def test_only_so_many_tasks_are_drawn(shifted):
    tasks = ("test", *(f"domain-{number}" for number in range(7)))
    study, results = shifted(tasks=tasks, scores={seed: [0.9] * 8 for seed in (1, 2)})
    [panels] = blocks(study, results, Panels)
    assert "The first 6 of 8 tasks are drawn" in panels.caption
    lines = ElementTree.fromstring(panels.drawings[0]).iter("polyline")
    assert [len(line.get("points").split()) for line in lines] == [6, 6]
    assert len(blocks(study, results, Table)[0].rows) == 8


def test_nothing_scored_is_nothing_drawn(shifted):
    study, results = shifted(scores={1: (None, None)})
    assert blocks(study, results, Panels) == [] and len(blocks(study, results, Table)) == 1
