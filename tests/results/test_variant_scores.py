"""Runs' scores and contributions, read from their folders."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.metrics import contributions
from finetune.results.reading import read_study
from finetune.results.variant_scores import variant_scores


def test_stored_scores_are_the_contributions_where_their_mean_is_the_metric(study):
    runs = read_study(study.path).variants["lora"]
    found = variant_scores(runs, "test", "accuracy")
    assert found.seeds == (1, 2, 3, 4, 5) and found.contributions.shape == (5, 200)
    assert found.scores == pytest.approx(found.contributions.mean(axis=1))
    assert found.scores.tolist() == [run.scores["test/accuracy"] for run in runs]


def test_other_metrics_are_computed_from_the_predictions(fabricator):
    made = fabricator([1, 2], {"full": "full"})
    rng, stored = np.random.default_rng(0), {}
    for seed in made.seeds:
        made.run("full", seed, 0.9)
        said, wanted = (rng.choice(["tech", "sport"], 200).tolist() for _ in range(2))
        rows = stored[seed] = contributions("macro_f1", {"prediction": said, "reference": wanted})
        folder = made.path / "full" / f"seed-{seed}"
        table = pq.read_table(folder / "predictions" / "test.parquet", partitioning=None).sort_by("example")
        for name, values in (("prediction", said), ("reference", wanted)):
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        pq.write_table(table, folder / "predictions" / "test.parquet")
        result = folder / "result.json"
        result.write_text(result.read_text().replace('"test/macro_f1": ', f'"test/macro_f1": {rows.mean()}, "x": '))
    found = variant_scores(read_study(made.path).variants["full"], "test", "macro_f1")
    assert found.contributions == pytest.approx(np.stack([stored[1], stored[2]]))


def test_what_is_no_mean_over_examples_has_scores_alone(study):
    runs = read_study(study.path).variants["lora"]
    assert variant_scores(runs, "test", "macro_f1").contributions is None  # fabricated: 0.98 times the accuracy
    assert variant_scores(runs, "test", "accuracy", by_example=False).contributions is None
    (runs[0].folder.predictions("test")).unlink()
    assert variant_scores(runs, "test", "accuracy").contributions is None


def test_the_base_model_is_fixed_and_what_was_never_scored_is_empty(study):
    read = read_study(study.path)
    base = variant_scores([read.base], "test", "accuracy")
    assert base.seeds is None and base.contributions.shape == (1, 200)
    assert len(variant_scores(read.variants["lora"], "test", "bleu")) == 0
