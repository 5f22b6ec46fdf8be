"""Calibration, from stored probabilities."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.results.calibration import FEWEST, MEASURES, calibration_of
from finetune.results.reading import read_study
from finetune.results.schema import to_json
from finetune.stats.calibration import calibration as measured
from tests.results.stores import believe


def of(made, name, task="test"):
    return calibration_of(read_study(made.path).variants[name], task, np.random.default_rng(0))


def test_the_estimates_are_those_of_the_seeds(sure):
    halves = int(np.random.default_rng(0).integers(2**63))  # the same of every run
    by_seed = [
        measured(*believe(sure.path / "again", "test", 0.95, 0.7, seed), np.random.default_rng(halves))
        for seed in sure.seeds
    ]
    full = of(sure, "full")
    for name in MEASURES:
        values, found = [getattr(each, name) for each in by_seed], getattr(full, name)
        assert found.mean == pytest.approx(np.mean(values), rel=1e-4), name
        assert found.n == 5 and found.ci[0] < found.mean < found.ci[1]
    assert full.temperature.mean > 1.5 and full.nll_scaled.mean < full.nll.mean
    assert full.ece.mean > 0.2 > of(sure, "lora").ece.mean
    json.dumps(to_json(full), allow_nan=False)


def test_rows_may_stand_in_any_order(sure):
    before = of(sure, "full")
    believe(sure.path / "full/seed-1", "test", 0.95, 0.7, 1, order=np.random.default_rng(5).permutation(200))
    assert of(sure, "full") == before


def test_the_diagram_is_that_of_the_bins(sure):
    rows = of(sure, "lora").reliability
    assert len(rows) == 15 and sum(row.share for row in rows) == pytest.approx(1)
    inside = [row for row in rows if row.share]
    assert [row.seeds for row in inside] == [5, 5] and [row.low for row in inside] == [11 / 15, 12 / 15]
    for row in inside:
        assert row.low < row.confidence <= row.high
        assert row.range[0] <= row.accuracy <= row.range[1] and abs(row.accuracy - 0.8) < 0.1
    empty = rows[0]
    assert (empty.seeds, empty.accuracy, empty.range) == (0, None, None)


def test_a_bin_of_few_examples_is_not_drawn(sure):
    for seed in sure.seeds:
        believe(sure.path / f"lora/seed-{seed}", "test", 0.8, 0.8, seed, n=FEWEST - 1)
    rows = of(sure, "lora").reliability
    assert sum(row.share for row in rows) == pytest.approx(1) and not any(row.seeds for row in rows)


def test_there_is_none_without_probabilities(sure):
    assert of(sure, "linear") is None


@pytest.mark.parametrize("column", ["probabilities", "loss"])
def test_probabilities_that_are_not_finite_are_left_out(sure, column):
    spoil(sure, column)
    full = of(sure, "full")
    assert full.left_out == 1 and full.nll.n == 4


def spoil(made, column):
    """Let one run of full have diverged."""
    path = made.path / "full/seed-2/predictions/test.parquet"
    table = pq.read_table(path)
    values = {"probabilities": [[float("nan")] * 3] * len(table), "loss": [float("inf")] * len(table)}[column]
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table.schema.field(column).type)), path)


def test_one_seed_has_no_interval(fabricator):
    made = fabricator([1], {"full": "full"})
    made.run("full", 1, 0.8)
    believe(made.path / "full/seed-1", "test", 0.8, 0.8)
    assert of(made, "full").nll.ci is None


def test_its_intervals_cover_new_examples_too(sure):
    """The seeds of `sure` are drawn anew, so that seeds and examples are one: wider than over seeds alone."""
    full = of(sure, "full")
    for name in ("nll", "brier", "ece", "ece_equal_mass"):
        found = getattr(full, name)
        assert "new examples" in found.method and found.ci[1] - found.ci[0] > 0 and found.ci_seeds is not None
        assert found.ci[0] >= 0
    assert "new examples" not in full.temperature.method
