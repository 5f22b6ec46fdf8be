"""Calibration in results.json and on the page, from stored probabilities."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.report.blocks import Fold, Panels, Table
from finetune.report.reading import read_study
from finetune.report.results import results_of
from finetune.report.sections import calibration
from finetune.stats.calibration import calibration as measured

LABELS = ("sport", "tech", "politics")


def store(folder, task, sureness, accuracy, seed=0, n=200, order=None):
    """Predictions that are ``sureness`` sure, and right in that share; rows in the given order."""
    rng = np.random.default_rng(seed)
    right, hit = rng.integers(3, size=n), rng.random(n) < accuracy
    chosen = np.where(hit, right, (right + rng.integers(1, 3, size=n)) % 3)
    sure = np.clip(sureness + rng.uniform(-0.05, 0.05, size=n), 0.34, 0.999)
    probabilities = np.repeat(((1 - sure) / 2)[:, None], 3, axis=1)
    probabilities[np.arange(n), chosen] = sure
    order = np.arange(n) if order is None else order
    rows = probabilities[order].astype(np.float32)
    table = pa.table(
        {
            "example": order,
            "prediction": [LABELS[label] for label in chosen[order]],
            "reference": [LABELS[label] for label in right[order]],
            "score": hit[order].astype(float),
            "probabilities": pa.array(list(rows), pa.list_(pa.float32())),
            "loss": -np.log(probabilities[np.arange(n), right])[order],
            "weight": np.ones(n),
        }
    )
    path = folder / "predictions" / f"{task}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"labels": json.dumps(LABELS)}), path)
    return probabilities, right


@pytest.fixture
def sure(study):
    """full is overconfident, lora is calibrated, linear has stored no probabilities."""
    for seed in study.seeds:
        store(study.path / f"full/seed-{seed}", "test", 0.95, 0.7, seed)
        store(study.path / f"lora/seed-{seed}", "test", 0.8, 0.8, seed)
    return study


def results(made, tasks=("test",)):
    """results.json with calibration of every task, as the report has it."""
    study = read_study(made.path)
    found = results_of(study)
    for variant in found["variants"]:
        runs = study.variants.get(variant["name"], [])
        each = {task: calibration.calibration_of(runs, task, np.random.default_rng(0)) for task in tasks}
        variant["calibration"] = {task: result for task, result in each.items() if result}
    return study, found


def of(found, name, task="test"):
    return next(v for v in found["variants"] if v["name"] == name)["calibration"][task]


def test_the_estimates_are_those_of_the_seeds(sure):
    _, found = results(sure)
    halves = int(np.random.default_rng(0).integers(2**63))  # the same of every run
    by_seed = [
        measured(*store(sure.path / "again", "test", 0.95, 0.7, seed), np.random.default_rng(halves))
        for seed in sure.seeds
    ]
    full = of(found, "full")
    assert full.keys() >= set(calibration.MEASURES)
    for name in calibration.MEASURES:
        values = [getattr(each, name) for each in by_seed]
        assert full[name]["mean"] == pytest.approx(np.mean(values), rel=1e-4), name
        assert full[name]["n"] == 5 and full[name]["ci"][0] < full[name]["mean"] < full[name]["ci"][1]
    assert full["temperature"]["mean"] > 1.5 and full["nll_scaled"]["mean"] < full["nll"]["mean"]
    assert full["ece"]["mean"] > 0.2 > of(found, "lora")["ece"]["mean"]
    json.dumps(full, allow_nan=False)


def test_rows_may_stand_in_any_order(sure):
    _, before = results(sure)
    store(sure.path / "full/seed-1", "test", 0.95, 0.7, 1, order=np.random.default_rng(5).permutation(200))
    _, after = results(sure)
    assert of(after, "full") == of(before, "full")


def test_the_diagram_is_that_of_the_bins(sure):
    _, found = results(sure)
    rows = of(found, "lora")["reliability"]
    assert len(rows) == 15 and sum(row["share"] for row in rows) == pytest.approx(1)
    inside = [row for row in rows if row["share"]]
    assert [row["seeds"] for row in inside] == [5, 5] and [row["low"] for row in inside] == [11 / 15, 12 / 15]
    for row in inside:
        assert row["low"] < row["confidence"] <= row["high"]
        assert row["range"][0] <= row["accuracy"] <= row["range"][1] and abs(row["accuracy"] - 0.8) < 0.1
    empty = rows[0]
    assert (empty["seeds"], empty["accuracy"], empty["range"]) == (0, None, None)


def test_a_bin_of_few_examples_is_not_drawn(sure):
    few = calibration.FEWEST - 1
    for seed in sure.seeds:
        store(sure.path / f"lora/seed-{seed}", "test", 0.8, 0.8, seed, n=few)
    _, found = results(sure)
    rows = of(found, "lora")["reliability"]
    assert sum(row["share"] for row in rows) == pytest.approx(1) and not any(row["seeds"] for row in rows)


def test_no_section_without_probabilities(study):
    assert calibration.section(*results(study)) is None
    plain = read_study(study.path)
    assert calibration.section(plain, results_of(plain)) is None


@pytest.mark.parametrize("column", ["probabilities", "loss"])
def test_probabilities_that_are_not_finite_are_left_out_and_told(sure, column):
    path = sure.path / "full/seed-2/predictions/test.parquet"
    table = pq.read_table(path)
    values = {"probabilities": [[float("nan")] * 3] * len(table), "loss": [float("inf")] * len(table)}[column]
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table.schema.field(column).type)), path)
    study, found = results(sure)
    assert of(found, "full")["left_out"] == 1 and of(found, "full")["nll"]["n"] == 4
    table = next(block for block in calibration.section(study, found).blocks if isinstance(block, Table))
    assert table.notes == ["full: 1 of 5 runs gave probabilities that are not finite: left out."]


def test_it_stands_on_the_page(sure):
    study, found = results(sure)
    section = calibration.section(study, found)
    table = next(block for block in section.blocks if isinstance(block, Table))
    panels = next(block for block in section.blocks if isinstance(block, Panels))
    assert section.title == "Calibration on test"
    assert [column.title for column in table.columns][:4] == ["variant", "NLL", "Brier", "ECE, %"]
    assert [row[0].text for row in table.rows] == ["lora", "full"]
    full = of(found, "full")
    assert table.rows[1][1].text == f"{full['nll']['mean']:.3f}"
    assert table.rows[1][3].text == f"{100 * full['ece']['mean']:.1f}" and table.rows[1][3].small.startswith("[")
    lora, _ = (ElementTree.fromstring(drawing) for drawing in panels.drawings)
    dots = [dot for dot in lora.iter("circle") if dot.get("class") == "dot"]
    rows = [row for row in of(found, "lora")["reliability"] if row["seeds"]]
    assert len(dots) == len(rows) == 2
    for dot, row in zip(dots, rows, strict=True):
        x = calibration.LEFT + row["confidence"] * (calibration.RIGHT - calibration.LEFT)
        y = calibration.BOTTOM - row["accuracy"] * (calibration.BOTTOM - calibration.TOP)
        assert (float(dot.get("cx")), float(dot.get("cy"))) == (pytest.approx(x, abs=0.06), pytest.approx(y, abs=0.06))


def test_other_tasks_are_folded(fabricator):
    made = fabricator([1, 2], {"full": "full"}, tasks=("test", "tweets"))
    for seed in made.seeds:
        made.run("full", seed, 0.8)
        for task in made.tasks:
            store(made.path / f"full/seed-{seed}", task, 0.8, 0.8, seed)
    section = calibration.section(*results(made, made.tasks))
    assert [block.title for block in section.blocks if isinstance(block, Fold)] == ["Calibration on tweets"]


def test_one_seed_has_no_interval(fabricator):
    made = fabricator([1], {"full": "full"})
    made.run("full", 1, 0.8)
    store(made.path / "full/seed-1", "test", 0.8, 0.8)
    study, found = results(made)
    assert of(found, "full")["nll"]["ci"] is None
    table = next(block for block in calibration.section(study, found).blocks if isinstance(block, Table))
    assert {cell.small for cell in table.rows[0]} == {""}
