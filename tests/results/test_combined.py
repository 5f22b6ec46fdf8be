"""What was made of seeds together: beside the variant, and in none of its numbers."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from finetune import stats
from finetune.report import build
from finetune.results.reading import read_study
from tests.results.stores import keep


def test_nothing_is_said_where_nothing_was_combined(study):
    assert all(variant.combined == [] for variant in build(study.path).variants)


def test_it_changes_no_other_number(study, combine):
    before = build(study.path)
    combine("lora", "ensemble", 0.99)
    after = build(study.path)
    assert after.variant("lora").combined != before.variant("lora").combined
    assert replace(after, variants=[replace(variant, combined=[]) for variant in after.variants]) == before


def test_the_gain_is_the_distance_from_the_mean_of_its_seeds(study, combine):
    combine("lora", "soup-greedy", 0.97, seeds=[2, 4], of=[1, 2, 4])
    lora = build(study.path).variant("lora")
    [found] = lora.combined
    runs = {run.seed: run.scores for run in lora.runs}
    assert (found.kind, found.seeds, found.of) == ("soup-greedy", [2, 4], [1, 2, 4])
    for metric, sign in (("test/accuracy", 1), ("test/macro_f1", 1), ("test/nll", -1)):
        mean, gain = np.mean([runs[seed][metric] for seed in (1, 2, 4)]), found.gain[metric]
        assert gain.mean_seed == pytest.approx(mean)
        assert gain.mean == pytest.approx(sign * (found.scores[metric] - mean)), "positive: better"
    assert found.gain["test/macro_f1"].ci is None, "no mean over examples, so no interval over them"
    assert "no mean over examples" in found.gain["test/macro_f1"].reason


def test_its_interval_is_that_of_the_paired_examples(study, combine):
    combine("lora", "ensemble", 0.97)
    gain = build(study.path).variant("lora").combined[0].gain["test/accuracy"]
    places = ["ensemble", *(f"seed-{seed}" for seed in range(1, 6))]
    tables = [
        pq.ParquetFile(study.path / "lora" / place / "predictions" / "test.parquet").read().sort_by("example")
        for place in places
    ]
    own, *seeds = [table["score"].to_numpy() for table in tables]
    assert gain.ci == pytest.approx(stats.gain(own, np.stack(seeds)).ci)


def test_its_interval_counts_groups_of_examples(study, combine):
    combine("lora", "ensemble", 0.97)
    plain = build(study.path).variant("lora").combined[0].gain["test/accuracy"]
    keep(study, ["a"] * study.examples, clusters=[f"text {number // 10}" for number in range(study.examples)])
    made = read_study(study.path)
    rows = [run.example_scores("test") for run in (*made.combined["lora"], *made.variants["lora"])]
    found = build(study.path).variant("lora").combined[0].gain["test/accuracy"]
    wanted = stats.gain(rows[0], np.stack(rows[1:]), clusters=np.arange(study.examples) // 10)
    assert found.ci == pytest.approx(wanted.ci) and found.ci != pytest.approx(plain.ci) and found.mean == plain.mean


def test_a_seed_that_is_gone_leaves_no_gain(study, combine):
    combine("lora", "ensemble", 0.97)
    shutil.rmtree(study.path / "lora" / "seed-3")
    [found] = build(study.path).variant("lora").combined
    assert found.gain == {} and found.scores
