"""What was made of seeds together, in results.json and on the page: beside the variant, and in none of its numbers."""

import json
import shutil

import numpy as np
import pytest

from finetune import stats
from finetune.report import build


@pytest.fixture
def add(study):
    """add('lora', 'soup-uniform', accuracy, seeds=[1, 2]) -> a combination beside the variant's seeds."""

    def write(variant, kind, accuracy, seeds=(1, 2, 3, 4, 5), of=(1, 2, 3, 4, 5), status="finished", reason=None):
        folder = study.path / variant / kind
        rng = np.random.default_rng(17)
        result = study.result(folder, variant, None, "adapter", accuracy, rng, status, reason)
        result |= {"kind": kind, "seeds": list(seeds), "of": list(of)}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        return result

    return write


def variant(results, name):
    return next(variant for variant in results["variants"] if variant["name"] == name)


def page(study, name="report.md"):
    return (study.path / "report" / name).read_text(encoding="utf-8")


def test_nothing_is_said_where_nothing_was_combined(study):
    assert all(variant["combined"] == [] for variant in build(study.path)["variants"])
    assert "Soups and ensembles" not in page(study) + page(study, "index.html")


def test_it_changes_no_other_number(study, add):
    before = build(study.path)
    add("lora", "ensemble", 0.99)
    after = build(study.path)
    assert variant(after, "lora").pop("combined") != variant(before, "lora").pop("combined")
    assert after == before


def test_the_gain_is_the_distance_from_the_mean_of_its_seeds(study, add):
    add("lora", "soup-greedy", 0.97, seeds=[2, 4], of=[1, 2, 4])
    lora = variant(build(study.path), "lora")
    [found] = lora["combined"]
    runs = {run["seed"]: run["scores"] for run in lora["runs"]}
    assert (found["kind"], found["seeds"], found["of"]) == ("soup-greedy", [2, 4], [1, 2, 4])
    for metric, sign in (("test/accuracy", 1), ("test/macro_f1", 1), ("test/nll", -1)):
        mean, gain = np.mean([runs[seed][metric] for seed in (1, 2, 4)]), found["gain"][metric]
        assert gain["mean_seed"] == pytest.approx(mean)
        assert gain["mean"] == pytest.approx(sign * (found["scores"][metric] - mean)), "positive: better"
    assert found["gain"]["test/macro_f1"]["ci"] is None, "no mean over examples, so no interval over them"
    assert "no mean over examples" in found["gain"]["test/macro_f1"]["reason"]


def test_its_interval_is_that_of_the_paired_examples(study, add):
    import pyarrow.parquet as pq

    add("lora", "ensemble", 0.97)
    gain = variant(build(study.path), "lora")["combined"][0]["gain"]["test/accuracy"]
    places = ["ensemble", *(f"seed-{seed}" for seed in range(1, 6))]
    tables = [
        pq.ParquetFile(study.path / "lora" / place / "predictions" / "test.parquet").read().sort_by("example")
        for place in places
    ]
    own, *seeds = [table["score"].to_numpy() for table in tables]
    assert gain["ci"] == pytest.approx(stats.gain(own, np.stack(seeds)).ci)


def test_it_stands_on_the_page(study, add):
    add("lora", "soup-greedy", 0.97, seeds=[2, 4])
    add("lora", "soup-uniform", 0.4)
    add("full", "ensemble", None, seeds=[], status="error", reason="RuntimeError: a <cosmic> ray")
    build(study.path)
    text = page(study)
    section = text[text.index("Soups and ensembles") :]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    greedy = next(row for row in rows if "soup-greedy" in row and "accuracy" in row)
    assert "| seeds 2, 4, of 5 |" in greedy and "**+" in greedy
    uniform = next(row for row in rows if "soup-uniform" in row and "accuracy" in row)
    assert "all 5 that finished" in uniform and "**\N{MINUS SIGN}" in uniform
    assert any("**ensemble**" in row and "**error**" in row for row in rows)
    assert "full, ensemble: RuntimeError: a \\<cosmic\\> ray" in section
    html = page(study, "index.html")
    assert 'id="combined"' in html and "a &lt;cosmic&gt; ray" in html


def test_a_seed_that_is_gone_leaves_no_gain(study, add):
    add("lora", "ensemble", 0.97)
    shutil.rmtree(study.path / "lora" / "seed-3")
    [found] = variant(build(study.path), "lora")["combined"]
    assert found["gain"] == {} and found["scores"]
