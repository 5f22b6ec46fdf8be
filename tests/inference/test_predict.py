"""Predicting files: columns, formats, resuming, calibration, and bad input in one line each."""

import csv
import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import finetune
from finetune.cli import main
from tests import tiny
from tests.inference import studies
from tests.inference.children import Child


@pytest.fixture
def news(tmp_path):
    rows = [(f"{number:03}", text, "2.50") for number, (text, _) in enumerate(tiny.sentences(40, seed=3))]
    with open(tmp_path / "news.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id", "text", "price"), *rows])
    return tmp_path / "news.csv"


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def problem(capsys, *argv):
    """What is said of bad input."""
    assert main(["predict", *map(str, argv)]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_columns_stay_as_they_are_written(topics_run, news, tmp_path):
    out = tmp_path / "out.csv"
    assert main(["predict", str(topics_run), str(news), "-o", str(out)]) == 0
    rows, given = read_csv(out), read_csv(news)
    assert [{name: row[name] for name in given[0]} for row in rows] == given
    assert list(rows[0]) == ["id", "text", "price", "prediction", "confidence"]
    assert {row["prediction"] for row in rows} <= set(tiny.WORDS)
    assert all(1 / 3 <= float(row["confidence"]) <= 1 for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["news.csv", "out.csv"], "nothing else is left"


def test_every_format_says_the_same(topics_run, news, tmp_path):
    outs = [tmp_path / f"out.{ending}" for ending in ("csv", "jsonl", "parquet")]
    for out in outs:
        assert main(["predict", str(topics_run), str(news), "-o", str(out), "--probabilities"]) == 0
    as_csv = [(row["prediction"], json.loads(row["probabilities"])) for row in read_csv(outs[0])]
    lines = [json.loads(line) for line in outs[1].read_text().splitlines()]
    as_lines = [(row["prediction"], row["probabilities"]) for row in lines]
    as_parquet = [(row["prediction"], row["probabilities"]) for row in pq.read_table(outs[2]).to_pylist()]
    assert as_csv == as_lines == as_parquet
    assert all(sum(each.values()) == pytest.approx(1, abs=1e-6) for _, each in as_lines)


def test_without_a_file_rows_are_lines_of_json(topics_run, news, capfd):
    assert main(["predict", str(topics_run), str(news)]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(rows) == 40 and rows[0]["id"] == "000" and rows[0]["price"] == "2.50"


def test_a_column_that_is_called_like_ours_stays(topics_run, tmp_path, capsys):
    given = tmp_path / "given.jsonl"
    rows = [{"text": text, "prediction": "mine", "example": 7} for text, _ in tiny.sentences(5)]
    given.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl"
    assert main(["predict", str(topics_run), str(given), "-o", str(out)]) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(row["prediction"] == "mine" and row["prediction_2"] in tiny.WORDS for row in found)
    assert [row["example"] for row in found] == [7] * 5
    assert "has a column 'prediction' already" in " ".join(capsys.readouterr().err.split())


def test_a_recipes_own_columns_are_made(tmp_path, encoder_folder):
    """What a recipe makes of a file's columns is made of another file's, as far as it has them."""
    from finetune import recipe as recipes
    from finetune.study.running import run_study

    recipe = tiny.write_topics(tmp_path, encoder_folder)
    text = recipe.read_text().partition("variants:")[0].replace("min_steps: 24", "min_steps: 2, max_steps: 2")
    text = text.replace("path: news.csv", "path: news.csv, columns: {text: 'News: {head}', label: topic}")
    recipe.write_text(f"{text}strategy: {{type: full}}\n")
    tiny.write_csv(tmp_path / "news.csv", tiny.sentences(90), ("head", "topic"))
    folder = run_study(recipes.load(recipe, ["seeds=1"]), tmp_path / "runs").folder
    [run] = folder.glob("*/seed-0")
    for name, rows in (("a", [f"News: {text}" for text, _ in tiny.sentences(9)]), ("b", None)):
        header = ("text", "n") if rows else ("head", "n")
        values = [(text, number) for number, text in enumerate(rows or [text for text, _ in tiny.sentences(9)])]
        tiny.write_csv(tmp_path / f"{name}.csv", values, header)
        argv = ["predict", str(run), str(tmp_path / f"{name}.csv"), "-o", str(tmp_path / f"{name}.jsonl")]
        assert main(argv) == 0
    one, other = (
        [json.loads(line)["confidence"] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in "ab"
    )
    assert one == pytest.approx(other, abs=1e-7)


def test_a_temperature_changes_no_answer(topics_run, news, tmp_path, capsys):
    for name, more in (("plain", []), ("calibrated", ["--calibrated"])):
        out = tmp_path / f"{name}.jsonl"
        assert main(["predict", str(topics_run), str(news), "-o", str(out), "--probabilities", *more]) == 0
    assert "fitted on 12 validation examples" in " ".join(capsys.readouterr().err.split())
    plain, scaled = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("plain", "calibrated")
    )
    assert [row["prediction"] for row in plain] == [row["prediction"] for row in scaled]
    logs = [np.log([list(row["probabilities"].values()) for row in each]) for each in (plain, scaled)]
    ratios = [each[:, 0] - each[:, 1] for each in logs]
    temperatures = ratios[0] / ratios[1]
    assert np.ptp(temperatures) < 1e-3 * temperatures[0] and abs(temperatures[0] - 1) > 1e-3


def test_rows_are_predicted_from_python(topics_run, news, tmp_path):
    out = tmp_path / "out.jsonl"
    assert main(["predict", str(topics_run), str(news), "-o", str(out)]) == 0
    wanted = [json.loads(line) for line in out.read_text().splitlines()]
    texts = [row["text"] for row in wanted]
    found = finetune.predict(topics_run, texts)
    assert [row["prediction"] for row in found] == [row["prediction"] for row in wanted]
    same = finetune.predict(topics_run, [{"text": text, "unread": None} for text in texts], probabilities=True)
    for row, other in zip(found, same, strict=True):
        assert row["confidence"] == pytest.approx(max(other["probabilities"].values()), abs=1e-6)


# Going on


def test_killed_at_any_moment_it_goes_on(topics_run, tmp_path, capsys):
    """Killed with SIGKILL while it predicts, and begun again: nothing that was done is done again, and the file is the
    one that comes out at once."""
    rows = [(text, "x") for text, _ in tiny.sentences(9000)]
    given = tiny.write_csv(tmp_path / "many.csv", rows, ("text", "unread"))
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    argv = ["predict", str(topics_run), str(given), "-o"]
    assert main([*argv, str(whole)]) == 0
    partial = tmp_path / ".out.csv.partial"
    child = Child([*argv, str(out)])
    while len(list(partial.glob("*.arrow"))) < 2:
        assert child.poll() is None, "it has ended before it could be killed"
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    there = {path.name for path in partial.glob("*.arrow")}
    assert there and not out.exists()
    capsys.readouterr()
    assert main([*argv, str(out)]) == 0
    assert f"going on: {len(there)} of 5 parts are there already" in " ".join(capsys.readouterr().err.split())
    assert out.read_bytes() == whole.read_bytes() and not partial.exists()


def test_what_was_made_of_something_else_is_not_kept(topics_run, news, tmp_path):
    from finetune.inference.pieces import Pieces

    out = tmp_path / "out.jsonl"
    former = Pieces(out, "another")
    former.open()
    former.write(0, pa.table({"prediction": ["wrong"] * 40}))
    assert main(["predict", str(topics_run), str(news), "-o", str(out)]) == 0
    assert "wrong" not in out.read_text()


def test_another_process_that_writes_the_file_is_told_of(topics_run, news, tmp_path, capsys):
    """Two at once would take each other's pieces; the second one may go on once the first has ended, however it did."""
    from finetune.inference.pieces import Pieces, claimed

    out = tmp_path / "out.csv"
    with claimed(out):
        Pieces(out, "its own").open()
        child = Child(["predict", topics_run, news, "-o", out])
        assert child.wait() == 2 and (tmp_path / ".out.csv.partial").exists()
        assert f"another process is writing '{out}'" in problem(capsys, topics_run, news, "-o", out)
    assert main(["predict", str(topics_run), str(news), "-o", str(out)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["news.csv", "out.csv"]


def test_where_there_are_no_locks_it_goes_on_without(topics_run, news, tmp_path, monkeypatch):
    from filelock import FileLock

    def none(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", none)
    assert main(["predict", str(topics_run), str(news), "-o", str(tmp_path / "out.csv")]) == 0


# Bad input


def test_a_missing_column_is_named_with_what_is_like_it(topics_run, tmp_path, capsys):
    given = tiny.write_csv(tmp_path / "given.csv", tiny.sentences(3), ("Text", "label"))
    said = problem(capsys, topics_run, given, "-o", tmp_path / "out.csv")
    assert "has no column 'text'" in said and "did you mean 'Text'?" in said
    assert main(["predict", str(topics_run), str(given), "-o", str(tmp_path / "out.csv"), "task.text=Text"]) == 0


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"text\n", "has no examples"),
        ("numbers.jsonl", b'{"text": 1}\n{"text": 2}\n', "holds numbers"),
        ("noise.parquet", b"no parquet", "noise.parquet"),
        ("file.unknown", b"text\na\n", "cannot be told from its name"),
    ],
)
def test_files_that_cannot_be_predicted(topics_run, tmp_path, capsys, name, content, said):
    (tmp_path / name).write_bytes(content)
    assert said in problem(capsys, topics_run, tmp_path / name, "-o", tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_places_that_cannot_be_written(topics_run, news, tmp_path, capsys):
    assert "there is no folder" in problem(capsys, topics_run, news, "-o", tmp_path / "none" / "out.csv")
    assert "is a folder" in problem(capsys, topics_run, news, "-o", make_folder(tmp_path / "out.csv"))
    assert "no ending that says how" in problem(capsys, topics_run, news, "-o", tmp_path / "out.txt")
    assert "is the file that is read" in problem(capsys, topics_run, news, "-o", news)
    assert "there is no" in problem(capsys, topics_run, tmp_path / "gone.csv", "-o", tmp_path / "o.csv")


def make_folder(path):
    path.mkdir()
    return path


def test_models_that_are_none(topics_run, news, tmp_path, capsys):
    study = topics_run.parent.parent
    said = problem(capsys, study, news)
    assert "has 1 saved models" in said and "seed-0" in said
    assert "no section that a trained model" in problem(capsys, topics_run, news, "train.epochs=2")
    assert "there is no key" in problem(capsys, topics_run, news, "task.txt=a")
    assert "config.json" in problem(capsys, make_folder(tmp_path / "nothing"), news)
    assert "there is no file or folder" in problem(capsys, "./gone", news)


@pytest.mark.parametrize(
    "status, code, wanted",
    [
        ("diverged", 2, "has failed: diverged: the loss is no number give a run of another seed"),
        ("error", 2, "has failed: error: the loss"),
        ("interrupted", 2, "is not finished"),
        ("degenerate", 0, "is degenerate: it learnt no more than needs no training: the loss"),
    ],
)
def test_a_run_that_has_failed_is_told_of(topics_run, news, tmp_path, capsys, status, code, wanted):
    run = tmp_path / "study" / "full" / "seed-0"
    shutil.copytree(topics_run, run)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "status": status, "reason": "the loss is no number"}))
    assert main(["predict", str(run), str(news)]) == code
    assert wanted in " ".join(capsys.readouterr().err.split())


def test_no_temperature_by_data_that_have_changed(news, tmp_path, capsys):
    run = studies.run_of(studies.make(tmp_path / "made", "classification", "encoder"))
    [data] = (tmp_path / "made" / "train").iterdir()
    data.write_text(data.read_text().replace("match", "final"))
    said = problem(capsys, run, news, "--calibrated")
    assert "are not those that" in said and "leave --calibrated out" in said
    assert main(["predict", str(run), str(news)]) == 0


def test_no_temperature_for_what_is_no_run(topics_run, news, tmp_path, capsys):
    shutil.copytree(topics_run / "model", tmp_path / "model")
    assert "is no run of a study" in problem(capsys, tmp_path / "model", news, "--calibrated")


@pytest.mark.root
def test_a_full_disk_is_told_in_one_line(topics_run, news, tmp_path, capsys):
    place = make_folder(tmp_path / "small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(place)], check=True)
    try:
        assert main(["predict", str(topics_run), str(news), "-o", str(place / "out.jsonl")]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "no room to write" in said and "Traceback" not in said
        assert not (place / "out.jsonl").exists()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_output_is_told_in_one_line(topics_run, news, tmp_path):
    with open(tmp_path / "said", "w+b") as said, open("/dev/full", "wb") as full:
        assert Child(["predict", topics_run, news], full.fileno(), said.fileno()).wait() == 1
        said.seek(0)
        lines = said.read().decode().splitlines()
        assert lines[-1].startswith("finetune: no room to write the output") and "Traceback (most" not in "".join(lines)


def test_a_closed_pipe_ends_quietly(topics_run, news, tmp_path):
    reads, writes = os.pipe()
    os.close(reads)
    with open(tmp_path / "said", "w+b") as said:
        child = Child(["predict", topics_run, news], writes, said.fileno())
        os.close(writes)
        assert child.wait() == 1
        said.seek(0)
        assert b"Traceback" not in said.read()
