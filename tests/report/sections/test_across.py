"""All evaluation sets together, on the page."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from finetune.report.blocks import Figure, Table, Text
from finetune.report.sections.across import sections
from tests.results.stores import TASKS, read
from tests.results.test_across import across, sets_of


def blocks_of(made, kind, sets=None):
    """The blocks of one kind in the section, and what it shows."""
    study, results = read(made)
    if sets is not None:
        results = replace(results, across=across(made, sets)[1])
    [section] = sections(study, results)
    return [block for block in section.blocks if isinstance(block, kind)], results.across


def test_one_task_has_no_section(study):
    assert sections(*read(study)) == []


def test_metrics_on_other_scales_are_left_out_with_the_reason(three_sets):
    [table, *_], _ = blocks_of(three_sets, Table, sets_of(("accuracy", "mcc", "macro_f1")))
    assert "tweets is left out: MCC is no share between 0 and 1 of which more is better." in table.notes


@pytest.mark.parametrize(
    "sets",
    [sets_of(("accuracy", "nll", "chrf")), sets_of(higher=False), sets_of(("hub:f1", "loss", "exact_match"))],
)
def test_fewer_than_two_tasks_on_one_scale_are_told(three_sets, sets):
    [text], _ = blocks_of(three_sets, object, sets)
    assert isinstance(text, Text) and "fewer than two tasks" in text.text and "left out" in text.text


def test_runs_without_a_score_are_told(three_sets):
    three_sets.run("full", 2, None, "diverged", "loss is not finite")
    three_sets.run("full", 3, 0.2, "degenerate", "at the majority")
    [table, *_], _ = blocks_of(three_sets, Table)
    assert "full: runs without a score on every task are not in it, which may flatter it." in table.notes


def test_a_variant_without_any_score_is_told(three_sets):
    for seed in three_sets.seeds:
        three_sets.run("linear", seed, None, "diverged", "loss is not finite")
    [table, *_], _ = blocks_of(three_sets, Table)
    assert table.rows[0][1].text == "\N{EN DASH}"
    assert any(note.startswith("linear: no run has a score on every task") for note in table.notes)


def test_one_run_against_others_has_no_interval(fabricator):
    made = fabricator([1, 2, 3], {"linear": "linear", "full": "full"}, tasks=TASKS)
    for seed in made.seeds:
        made.run("linear", seed, 0.8)
    made.run("full", 1, 0.8)
    [_, pairs], _ = blocks_of(made, Table)
    assert [cell.text for cell in pairs.rows[0]][2:] == ["\N{EN DASH}"] * 3
    assert any(note.startswith("linear \N{MINUS SIGN} full: one seed") for note in pairs.notes)


def test_the_tables(three_sets):
    for seed in three_sets.seeds:
        three_sets.run("linear", seed, 0.86)
    [variants, pairs], found = blocks_of(three_sets, Table)
    assert [row[0].text for row in variants.rows] == ["linear", "full", "base"]
    full = found.variants[1]
    assert variants.rows[1][1].text == f"{100 * full.iqm.value:.1f}" and variants.rows[1][1].small.startswith("[")
    assert variants.rows[2][1].small == "" and variants.rows[2][5].text == "1"
    [row] = pairs.rows
    chance = found.pairs[0].probability_of_improvement
    assert row[0].about == ("linear", "full") and row[1].text == f"{chance.value:.2f}"
    assert row[2].text == f"[{chance.ci[0]:.2f}, {chance.ci[1]:.2f}]"
    epsilons = [order.epsilon_min for order in found.pairs[0].order.right.values()]
    assert row[4].text == f"{sum(epsilon < 0.2 for epsilon in epsilons)} of 3 tasks"
    assert row[4].small == ", ".join(f"{epsilon:.2f}" for epsilon in epsilons)


@pytest.mark.parametrize("narrow", [False, True])
def test_profiles_fall_from_left_to_right_one_line_per_variant(three_sets, narrow):
    [figure], _ = blocks_of(three_sets, Figure)
    drawing = ElementTree.fromstring(figure.narrow if narrow else figure.wide)
    lines = [line for line in drawing.iter("polyline") if "profile" in line.get("class")]
    assert len(lines) == 3 and len([band for band in drawing.iter("polygon")]) == 2, "the base has no band"
    assert [group.get("class") for group in drawing.findall("g")] == ["c0", "c1", "base"]
    ends = []
    for line in lines:
        points = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
        assert points == sorted(points), "ever further right, and down"
        ends.append(next(x for x, y in points if y == points[-1][1]))
    assert ends[2] < ends[0] < ends[1], "the better variant falls later"
    width = float(drawing.get("viewBox").split()[2])
    assert all(0 <= float(text.get("x")) <= width for text in drawing.iter("text"))
    names = [text for text in drawing.iter("text") if text.get("class") == "name"]
    assert len({(text.get("x"), text.get("y")) for text in names}) == 3, "no name stands on another"
    tops = [float(line.get("points").split()[0].split(",")[1]) for line in lines]
    assert max(float(text.get("y")) for text in names) < min(tops), "nor on a line"
    assert drawing.get("role") == "img" and drawing.get("aria-label")


def test_one_score_everywhere_has_no_drawing(fabricator):
    made = fabricator([1, 2], {"full": "full"}, tasks=TASKS)
    for seed in (1, 2):
        made.run("full", seed, 1.0)
    blocks, _ = blocks_of(made, Table | Figure)
    [table] = blocks
    assert isinstance(table, Table) and any("not certainty" in note for note in table.notes)
