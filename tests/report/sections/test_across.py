"""All tasks together, for results.json and on the page."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from finetune.report.blocks import Figure, Table, Text
from finetune.report.reading import read_study
from finetune.report.sections.across import across_of, sections
from finetune.stats.across import aggregate, improvement_across, interquartile_mean

TASKS = ("test", "tweets", "mails")


@pytest.fixture
def made(fabricator):
    """Six seeds of two variants on three tasks, and the base model: full is ahead everywhere."""
    found = fabricator(list(range(1, 7)), {"linear": "linear", "full": "full"}, tasks=TASKS)
    for seed in found.seeds:
        found.run("linear", seed, 0.6)
        found.run("full", seed, 0.9)
    found.base(0.3)
    return found


def tasks_of(metrics=("accuracy", "accuracy", "accuracy"), higher=True):
    return [
        {"name": name, "metric": metric, "higher_is_better": higher}
        for name, metric in zip(TASKS, metrics, strict=True)
    ]


def across(made, tasks=None, seed=0):
    study = read_study(made.path)
    return study, across_of(study, tasks_of() if tasks is None else tasks, np.random.default_rng(seed))


def table_of(study, variant):
    return np.array([[run.scores[f"{task}/accuracy"] for task in TASKS] for run in study.variants[variant]])


def test_it_is_what_the_statistics_say_of_the_runs_scores(made):
    study, found = across(made)
    linear, full, base = found["variants"]
    for row in (linear, full):
        expected = aggregate(table_of(study, row["name"]), interquartile_mean)
        assert (row["iqm"]["value"], row["iqm"]["ci"]) == (expected.value, expected.ci) and row["runs"] == 6
        assert row["optimality_gap"]["value"] == pytest.approx(1 - row["mean"]["value"])
    assert base["name"] == "base" and base["runs"] == 1 and base["iqm"]["ci"] is None and base["iqm"]["reason"]
    [pair] = found["pairs"]
    expected = improvement_across(table_of(study, "linear"), table_of(study, "full"))
    assert (pair["left"], pair["right"]) == ("linear", "full")
    assert pair["probability_of_improvement"]["value"] == expected.value == 0
    assert {task: order["epsilon_min"] for task, order in pair["order"]["left"].items()} == dict.fromkeys(TASKS, 1.0)
    assert {task: order["epsilon_min"] for task, order in pair["order"]["right"].items()} == dict.fromkeys(TASKS, 0.0)
    assert pair["order_alpha"] == pytest.approx(0.05 / 6), "two ways on three tasks"
    share = full["profile"]["share"]
    assert len(found["taus"]) == len(share) == 102 and share[0] == base["profile"]["share"][0] == 1 and share[-1] == 0
    json.dumps(found, allow_nan=False)


def test_the_level_of_each_order_is_shared_by_all_pairs_both_ways_and_tasks(fabricator):
    made = fabricator([1, 2], {"linear": "linear", "lora": "adapter", "full": "full"}, tasks=TASKS)
    for seed in made.seeds:
        for variant in made.variants:
            made.run(variant, seed, 0.8)
    _, found = across(made)
    assert [(pair["left"], pair["right"]) for pair in found["pairs"]] == [
        ("linear", "lora"),
        ("linear", "full"),
        ("lora", "full"),
    ]
    assert all(pair["order_alpha"] == pytest.approx(0.05 / 18) for pair in found["pairs"])
    assert all(order["reason"] for pair in found["pairs"] for order in pair["order"]["left"].values()), "two seeds"


def test_the_generator_decides(made):
    for seed in made.seeds:
        made.run("linear", seed, 0.88)
    assert across(made, seed=1)[1] == across(made, seed=1)[1] != across(made, seed=2)[1]


def test_one_task_has_nothing_across(made):
    study, found = across(made, tasks_of()[:1])
    assert found is None and sections(study, {"across": None}) == sections(study, {}) == []


def test_metrics_on_other_scales_are_left_out_with_the_reason(made):
    study, found = across(made, tasks_of(("accuracy", "mcc", "macro_f1")))
    assert [(row["task"], row["metric"]) for row in found["tasks"]] == [("test", "accuracy"), ("mails", "macro_f1")]
    assert found["left_out"] == [
        {"task": "tweets", "metric": "mcc", "reason": "MCC is no share between 0 and 1 of which more is better"}
    ]
    table = next(block for block in sections(study, {"across": found})[0].blocks if isinstance(block, Table))
    assert "tweets is left out: MCC is no share between 0 and 1 of which more is better." in table.notes


@pytest.mark.parametrize(
    "tasks",
    [tasks_of(("accuracy", "nll", "chrf")), tasks_of(higher=False), tasks_of(("hub:f1", "loss", "exact_match"))],
)
def test_fewer_than_two_tasks_on_one_scale_are_told(made, tasks):
    study, found = across(made, tasks)
    assert found["variants"] == [] and found["pairs"] == [] and "fewer than two tasks" in found["reason"]
    [section] = sections(study, {"across": found})
    [text] = section.blocks
    assert isinstance(text, Text) and "fewer than two tasks" in text.text and "left out" in text.text


def test_runs_without_a_score_are_counted_out_and_failed_ones_with_scores_stay(made):
    made.run("full", 2, None, "diverged", "loss is not finite")
    made.run("full", 3, 0.2, "degenerate", "at the majority")
    study, found = across(made)
    full = found["variants"][1]
    assert (full["runs"], full["runs_left_out"]) == (5, 1)
    assert full["mean"]["value"] < 0.85
    notes = next(block for block in sections(study, {"across": found})[0].blocks if isinstance(block, Table)).notes
    assert "full: runs without a score on every task are not in it, which may flatter it." in notes


def test_a_variant_without_any_score_is_told(made):
    for seed in made.seeds:
        made.run("linear", seed, None, "diverged", "loss is not finite")
    study, found = across(made)
    assert found["variants"][0]["iqm"] is None and found["pairs"] == []
    tables = [block for block in sections(study, {"across": found})[0].blocks if isinstance(block, Table)]
    assert tables[0].rows[0][1].text == "\N{EN DASH}"
    assert any(note.startswith("linear: no run has a score on every task") for note in tables[0].notes)


def test_one_run_against_others_has_no_interval(fabricator):
    made = fabricator([1, 2, 3], {"linear": "linear", "full": "full"}, tasks=TASKS)
    for seed in made.seeds:
        made.run("linear", seed, 0.8)
    made.run("full", 1, 0.8)
    study, found = across(made)
    chance = found["pairs"][0]["probability_of_improvement"]
    assert chance["ci"] is None and "at least two" in chance["reason"]
    tables = [block for block in sections(study, {"across": found})[0].blocks if isinstance(block, Table)]
    assert [cell.text for cell in tables[1].rows[0]][2:] == ["\N{EN DASH}"] * 3
    assert any(note.startswith("linear \N{MINUS SIGN} full: one seed") for note in tables[1].notes)


def test_the_tables(made):
    for seed in made.seeds:
        made.run("linear", seed, 0.86)
    study, found = across(made)
    [section] = sections(study, {"across": found})
    variants, pairs = (block for block in section.blocks if isinstance(block, Table))
    assert [row[0].text for row in variants.rows] == ["linear", "full", "base"]
    full = found["variants"][1]
    assert variants.rows[1][1].text == f"{100 * full['iqm']['value']:.1f}" and variants.rows[1][1].small.startswith("[")
    assert variants.rows[2][1].small == "" and variants.rows[2][5].text == "1"
    [row] = pairs.rows
    chance = found["pairs"][0]["probability_of_improvement"]
    assert row[0].about == ("linear", "full") and row[1].text == f"{chance['value']:.2f}"
    assert row[2].text == f"[{chance['ci'][0]:.2f}, {chance['ci'][1]:.2f}]"
    epsilons = [order["epsilon_min"] for order in found["pairs"][0]["order"]["right"].values()]
    assert row[4].text == f"{sum(epsilon < 0.2 for epsilon in epsilons)} of 3 tasks"
    assert row[4].small == ", ".join(f"{epsilon:.2f}" for epsilon in epsilons)


@pytest.mark.parametrize("narrow", [False, True])
def test_profiles_fall_from_left_to_right_one_line_per_variant(made, narrow):
    study, found = across(made)
    [section] = sections(study, {"across": found})
    figure = next(block for block in section.blocks if isinstance(block, Figure))
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
    study, found = across(made)
    [section] = sections(study, {"across": found})
    assert not [block for block in section.blocks if isinstance(block, Figure)] and found["pairs"] == []
    notes = next(block for block in section.blocks if isinstance(block, Table)).notes
    assert any("not certainty" in note for note in notes)
