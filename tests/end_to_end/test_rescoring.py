"""Scoring and reporting again: `finetune evaluate` and `finetune report`."""

from __future__ import annotations

import json

import pytest

from tests import tiny
from tests.end_to_end.reading import predictions, results, scores

OTHER = "evaluate=[{name: other, data: {path: other.csv}}]"


@pytest.fixture
def study(topics, finetune, tmp_path):
    """The folder of a finished study with every kind of saved weights."""
    topics.write_text(
        topics.read_text()
        + "  lora: {strategy: {type: adapter, rank: 4}, train: {learning_rate: 0.03}}\n"
        + "  fresh: {strategy: {type: partial, last: 1}, mitigations: [{type: reinit, layers: 1}]}\n"
    )
    done = finetune("run", "topics.yaml", "seeds=1")
    assert done.code == 0, done.text
    return tmp_path / "runs" / "topics"


def test_scoring_again_gives_the_same_scores(study, finetune):
    before, tables = scores(study), predictions(study)
    for table in study.rglob("*.parquet"):
        table.unlink()
    done = finetune("evaluate", "runs/topics")
    assert done.code == 0, done.text
    assert scores(study) == before
    assert all(table.equals(tables[path]) for path, table in predictions(study).items())
    assert set(predictions(study)) == set(tables)


def test_another_held_out_task_joins_the_report(study, finetune, tmp_path):
    before = scores(study)
    tiny.write_csv(tmp_path / "other.csv", tiny.sentences(40, seed=5))
    done = finetune("evaluate", "runs/topics", OTHER, "evaluate.0.data.limit=20")
    assert done.code == 0, done.text
    assert "other: accuracy, % (20 examples)" in done.out
    said = results(study)
    assert [(task["name"], task["split"], task["examples"]) for task in said["tasks"]] == [
        ("test", "test", 30),
        ("other", "evaluate", 20),
    ]
    for variant in said["variants"]:
        found = variant["runs"][0]["scores"]
        own = before[f"{variant['name']}/seed-0"]
        assert own.items() <= found.items()
        assert set(found) - set(own) == {f"other/{metric}" for metric in ("accuracy", "macro_f1", "mcc", "nll")}
        assert variant["estimates"]["other/accuracy"]["mean"] == found["other/accuracy"]
    assert "other" in (study / "report" / "report.md").read_text(encoding="utf-8")


def test_training_examples_cannot_be_held_out_afterwards(study, finetune):
    before = scores(study)
    done = finetune("evaluate", "runs/topics", "evaluate=[{name: other, data: {path: news.csv}}]")
    assert done.code == 2
    assert "held-out examples are in the training data" in done.text
    assert scores(study) == before


def test_without_saved_models_the_scores_stay(topics, finetune, tmp_path):
    assert finetune("run", "topics.yaml", "seeds=1", "train.save_model=false").code == 0
    study = tmp_path / "runs" / "topics"
    before = scores(study)
    assert not list(study.glob("*/*/model"))
    done = finetune("evaluate", "runs/topics")
    assert done.code == 0
    for variant in ("linear", "full"):
        assert f"{variant}, seed 0 · no saved model (train.save_model), scores kept as they are" in done.out
    assert scores(study) == before


def test_the_report_can_be_written_again(study, finetune):
    written = {path.name: path.read_bytes() for path in (study / "report").iterdir()}
    assert set(written) == {"index.html", "report.md", "model-card.md", "results.json"}
    for path in (study / "report").iterdir():
        path.unlink()
    done = finetune("report", "runs/topics")
    assert done.code == 0, done.text
    assert done.out.endswith("report: runs/topics/report/index.html\n")
    assert {path.name: path.read_bytes() for path in (study / "report").iterdir()} == written


def test_the_base_model_is_scored_again_too(chats, finetune, tmp_path):
    assert finetune("run", "chats.yaml", "seeds=1").code == 0
    study = tmp_path / "runs" / "chats"
    before = scores(study)
    tiny.write_chats(tmp_path / "other.jsonl", 12, seed=7)
    done = finetune("evaluate", "runs/chats", "evaluate=[{name: other, data: {path: other.jsonl}}]")
    assert done.code == 0, done.text
    for run, found in scores(study).items():
        assert before[run].items() <= found.items()
        assert "other/rouge_l" in found
    assert json.loads((study / "base" / "result.json").read_text())["seed"] is None


def test_running_again_keeps_what_was_scored_in_between(study, finetune, tmp_path):
    tiny.write_csv(tmp_path / "other.csv", tiny.sentences(40, seed=5))
    assert finetune("evaluate", "runs/topics", OTHER, "evaluate.0.data.limit=20").code == 0
    done = finetune("run", "topics.yaml", "seeds=1")
    assert done.code == 0, done.text
    assert "every run is finished already" in done.text
    assert [task["name"] for task in results(study)["tasks"]] == ["test", "other"]
