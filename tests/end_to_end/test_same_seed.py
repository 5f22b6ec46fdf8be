"""What a seed decides, and what it does not."""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.reading import predictions, results, scores


def test_the_same_seed_gives_the_same_bits_in_another_process(topics, command, finetune, tmp_path):
    assert command("run", "topics.yaml", "seeds=2", "--output", "one", PYTHONHASHSEED="1").returncode == 0
    assert finetune("run", "topics.yaml", "seeds=[1]", "--output", "two").code == 0
    one, two = tmp_path / "one" / "topics", tmp_path / "two" / "topics"
    assert scores(two).items() <= scores(one).items()
    tables, again = predictions(one), predictions(two)
    assert set(again) == {"linear/seed-1/predictions/test.parquet", "full/seed-1/predictions/test.parquet"}
    for path, table in again.items():
        assert table.equals(tables[path])
        assert not table.equals(tables[path.replace("seed-1", "seed-0")])
    weights = "full/seed-1/model/model.safetensors"
    assert (one / weights).read_bytes() == (two / weights).read_bytes()


def test_two_seeds_that_are_secretly_the_same_are_an_error(chats, finetune, tmp_path):
    chats.write_text("vary: [dropout]\n" + chats.read_text())  # the model has none
    done = finetune("run", "chats.yaml")
    assert done.code == 1
    assert "full, seed 1: error: this seed starts from the same weights, batch and dropout as seed 0" in done.text
    [variant] = [variant for variant in results(tmp_path / "runs" / "chats")["variants"] if variant["name"] == "full"]
    assert [run["status"] for run in variant["runs"]] == ["finished", "error"]
    assert (variant["failures"]["count"], variant["failures"]["n"]) == (1, 2)
    assert variant["estimates"]["test/rouge_l"]["n"] == 1
    page = (tmp_path / "runs" / "chats" / "report" / "index.html").read_text(encoding="utf-8")
    assert "counting both would count one run twice" in page


@pytest.mark.parametrize("stream", ["init", "order", "dropout"])
def test_each_stream_alone_makes_seeds_differ(topics, finetune, tmp_path, stream):
    assert finetune("run", "topics.yaml", f"vary=[{stream}]").code == 0
    tables = predictions(tmp_path / "runs" / "topics")
    one, two = (tables[f"full/seed-{seed}/predictions/test.parquet"] for seed in (0, 1))
    assert one["reference"] == two["reference"]
    assert one["probabilities"] != two["probabilities"]


@pytest.mark.parametrize(("vary", "moves"), [("[init, order]", False), ("[split, init, order]", True)])
def test_the_split_moves_with_the_seed_only_when_asked(topics, finetune, tmp_path, vary, moves):
    done = finetune("run", "topics.yaml", f"vary={vary}")
    assert done.code == 0, done.text
    study = tmp_path / "runs" / "topics"
    tables = predictions(study)
    held_out = [tables[f"full/seed-{seed}/predictions/test.parquet"] for seed in (0, 1)]
    assert (held_out[0]["reference"] != held_out[1]["reference"]) == moves
    streams = json.loads((study / "full" / "seed-1" / "result.json").read_text())["streams"]
    assert streams == {"split": int(moves), "init": 1, "order": 1, "dropout": 0, "noise": 0}
