"""Agreement of seeds, on the page."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from finetune.report.blocks import Fold, Panels, Table
from finetune.report.sections.agreement import sections
from tests.fabricated import with_variant
from tests.results.stores import predict, read
from tests.results.test_agreement import LABELS


def of_one_set(made):
    """The study, and its results as if it had the first set alone."""
    study, results = read(made)
    return study, replace(results, tasks=results.tasks[:1])


def test_texts_stay_in_the_store(alike):
    for seed, text in zip((1, 2, 3), ("a <secret> answer", "a <secret> answer", "another"), strict=True):
        predict(alike, "lora", seed, [text, f"{text} of seed {seed}"], ["a", "b"])
    shown = sections(*of_one_set(alike))
    assert shown and "secret" not in str(shown)


def test_the_section_shows_every_variant_and_task(alike):
    for seed, row in zip((1, 2, 3), (["tech", "sport"], ["tech", "tech"], ["tech", "sport"]), strict=True):
        predict(alike, "lora", seed, row * 2, ["tech"] * 4)
        predict(alike, "lora", seed, row * 3, ["tech"] * 6, task="tweets")
    [section] = sections(*read(alike))
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert [(row[0].text, row[1].text) for row in table.rows] == [
        ("lora", "test"),
        ("full", "test"),
        ("lora", "tweets"),
        ("full", "tweets"),
    ]
    assert [cell.text for cell in table.rows[0]] == [
        "lora",
        "test",
        "33.3\u202f%",
        "0.250",  # of twelve votes 8 and 4, so P_e = 80 / 144; (2/3 - 5/9) / (4/9)
        "2 of 4",
        "2",
        "3",
        "1, 3",
    ]
    assert [cell.text for cell in table.rows[1]][2:5] == ["0.0\u202f%", "\N{EN DASH}", "0 of 200"]
    assert any(note.startswith("full on test, full on tweets: every seed predicts the same") for note in table.notes)
    panels = [block for block in section.blocks if isinstance(block, Panels)]
    folds = [block for block in section.blocks if isinstance(block, Fold)]
    assert len(panels) == 1 and len(panels[0].drawings) == 1, "full has no flip to draw"
    assert [fold.title for fold in folds] == ["Disagreement on tweets"]


def test_bars_are_as_high_as_their_counts(alike):
    rows = np.array([[0] * 12, [0] * 8 + [1] * 4, [0] * 6 + [1] * 2 + [2] * 4])
    for seed, row in zip((1, 2, 3), LABELS[rows], strict=True):
        predict(alike, "lora", seed, row)
    study, results = of_one_set(alike)
    assert results.variants[0].agreement["test"].dissenters == [6, 2, 4]
    [section] = sections(study, results)
    panel = next(block for block in section.blocks if isinstance(block, Panels)).drawings[0]
    drawing = ElementTree.fromstring(panel)
    bars = [bar for bar in drawing.iter("rect") if bar.get("class") == "bar"]
    heights = [float(bar.get("height")) for bar in bars]
    assert len(bars) == 2 and heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert drawing.get("role") == "img" and "none on 6 of 12, 1 on 2 and 2 on 4" in drawing.get("aria-label")
    assert drawing.get("class") == "panel c0" and "none on 6 of 12" in "".join(drawing.itertext())


def test_names_are_escaped(fabricator):
    made = fabricator([1, 2], {"<b>&": "full"})
    for seed in (1, 2):
        made.run("<b>&", seed, 0.9)
        predict(made, "<b>&", seed, [f"tech {seed}", "tech"])
    [section] = sections(*of_one_set(made))
    drawing = next(block for block in section.blocks if isinstance(block, Panels)).drawings[0]
    assert "<b>" not in drawing and "&lt;b&gt;&amp;" in drawing


@pytest.mark.parametrize("seeds", [[1], []])
def test_no_section_without_two_seeds(fabricator, seeds):
    made = fabricator([1, 2], {"full": "full"})
    for seed in seeds:
        made.run("full", seed, 0.9)
    study, results = of_one_set(made)
    assert sections(study, results) == []
    assert sections(study, with_variant(results, "full", agreement={})) == []
