"""Files of a study lie where they are documented to, and are written whole or not at all."""

import math
import os
from pathlib import Path

import pytest

from finetune.core.errors import InputError
from finetune.core.run_dir import RunDir, StudyDir, atomic, read_json, write_json, write_text


def test_the_tree():
    study = StudyDir(Path("runs/topics"))
    run = study.run("lora", 3)
    assert str(study.examples("test")) == "runs/topics/examples/test.parquet"
    paths = [study.recipe, study.resolved, study.environment, study.data, study.report, study.base.path, run.path]
    assert [str(path) for path in paths] == [
        f"runs/topics/{name}"
        for name in ("recipe.yaml", "resolved.yaml", "environment.json", "data.json", "report", "base", "lora/seed-3")
    ]
    assert str(study.baseline("centroid").result) == "runs/topics/baselines/centroid/result.json"
    inside = [run.result, run.metrics, run.checkpoints, run.model, run.predictions("test")]
    assert [str(path.relative_to(run.path)) for path in inside] == [
        "result.json",
        "metrics.jsonl",
        "checkpoints",
        "model",
        "predictions/test.parquet",
    ]


def test_json_comes_back_as_it_was(tmp_path):
    content = {"name": "Überschrift", "scores": [0.1 + 0.2, None], "nested": {"seed": 2**62}}
    write_json(tmp_path / "deep" / "a.json", content)
    assert read_json(tmp_path / "deep" / "a.json") == content
    assert "Überschrift" in (tmp_path / "deep" / "a.json").read_text(encoding="utf-8")


def test_baselines_with_a_result_are_found(tmp_path):
    study = StudyDir(tmp_path)
    assert study.all_baselines() == []
    for name in ("words", "copy"):
        write_json(study.baseline(name).result, {})
    study.baseline("begun").path.mkdir()
    assert [each.path.name for each in study.all_baselines()] == ["copy", "words"]
    assert study.baseline("copy").variant == "copy" and study.baseline("copy").seed is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_does_not_have_are_refused(tmp_path, value):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"score": value})
    assert read_json(tmp_path / "a.json") == 1


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), atomic(path) as temporary:
        temporary.write_text("half of the ne")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_new_file_takes_its_place_in_one_move_after_it_is_on_disk(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), sync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and done == ["fsync", "replace"] * 2


def test_a_result_is_there_only_when_the_run_has_ended(tmp_path):
    run = RunDir(tmp_path / "full" / "seed-1")
    assert run.read_result() is None
    write_json(run.result, {"status": "finished"})
    assert run.read_result() == {"status": "finished"}


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not a study: it has no resolved\.yaml"):
        StudyDir(tmp_path).require()
    (tmp_path / "resolved.yaml").write_text("name: topics\n")
    assert StudyDir(tmp_path).require() == StudyDir(tmp_path)
