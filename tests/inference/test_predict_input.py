"""What files to be predicted may hold: rows without a text, numbers, other encodings; and what is said of them."""

import csv
import json
import os

import pytest

from finetune.cli import main
from finetune.inference import asking, reading
from tests import tiny

TEXTS = [text for text, _ in tiny.sentences(6, seed=3)]


def predicted(run, given, out, *more):
    """The rows that the file ``out`` has."""
    assert main(["predict", *map(str, (run, given, "-o", out)), *more]) == 0
    if out.suffix == ".csv":
        with open(out, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in out.read_text().splitlines()]


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def problem(capsys, *argv):
    """What is said of bad input."""
    assert main(["predict", *map(str, argv)]) == 2
    return said(capsys)


def written(folder, ending, texts):
    """A file with these texts, some of which are none."""
    path = folder / f"given{ending}"
    if ending == ".csv":
        return tiny.write_csv(path, [(text, number) for number, text in enumerate(texts)], ("text", "n"))
    path.write_text("".join(json.dumps({"text": text, "n": number}) + "\n" for number, text in enumerate(texts)))
    return path


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize("out", ["out.csv", "out.jsonl", "out.parquet"])
def test_rows_without_a_text_get_no_prediction(topics_run, tmp_path, capsys, monkeypatch, ending, out):
    """In every place: in front, at the end of a part, and in all of what would have been one."""
    monkeypatch.setattr(asking, "WINDOW", 2)
    monkeypatch.setattr(reading, "CHECKED", 3)
    texts = [None, *TEXTS[:2], "", None, "  ", None, *TEXTS[2:5], None]
    argv = ["predict", str(topics_run), str(written(tmp_path, ending, texts)), "--probabilities"]
    assert main([*argv, "-o", str(tmp_path / out)]) == 0
    assert "6 rows have no text in 'text': no prediction stands there" in said(capsys)
    if out == "out.parquet":
        import pyarrow.parquet as pq

        rows = pq.read_table(tmp_path / out).to_pylist()
    else:
        rows = predicted(topics_run, written(tmp_path, ending, texts), tmp_path / out, "--probabilities")
    alone = predicted(topics_run, written(tmp_path, ".csv", TEXTS[:5]), tmp_path / "alone.csv")
    assert [int(row["n"]) for row in rows] == list(range(11))
    found = [row["prediction"] for row in rows]
    assert [bool(each) for each in found] == [bool(text and text.strip()) for text in texts]
    assert [bool(row[name]) for name in ("confidence", "probabilities") for row in rows] == 2 * [*map(bool, found)]
    assert [each for each in found if each] == [row["prediction"] for row in alone]


def test_rows_without_a_text_stay_in_a_pipe(topics_run, tmp_path, capfd):
    assert main(["predict", str(topics_run), str(written(tmp_path, ".csv", ["", *TEXTS, ""]))]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(rows) == 8 and rows[0]["prediction"] is None and rows[-1] == {**rows[0], "n": "7"}


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_file_without_any_text_is_refused(topics_run, tmp_path, capsys, ending):
    given = written(tmp_path, ending, [None, "", " "])
    assert "has a text in 'text'" in problem(capsys, topics_run, given, "-o", tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [given.name]


def test_numbers_of_a_csv_file_are_the_texts_that_they_are_written_as(topics_run, tmp_path):
    for name, texts in (("numbers", ["42", "2.50"]), ("texts", ["42", "2.50", "a word"])):
        (tmp_path / name).mkdir()
        given = written(tmp_path / name, ".csv", texts)
        (tmp_path / f"{name}.txt").write_text(str(predicted(topics_run, given, tmp_path / name / "out.csv")[:2]))
    assert (tmp_path / "numbers.txt").read_text() == (tmp_path / "texts.txt").read_text()


@pytest.mark.parametrize(
    "name, content, wanted, unwanted",
    [
        ("nosuffix", b"text\na\n", "FILE: what 'nosuffix' is cannot be told from its name add --format with", "set `"),
        ("table.csv", b"txt\na\n", "has no column 'text' did you mean 'txt'? (choose from: txt)", "label,"),
        (
            "numbers.jsonl",
            b'{"text": 1}\n',
            "holds numbers, such as 1, not text if they are meant as text, write",
            ".col",
        ),
        ("latin.csv", "text\nein schöner Tag\n".encode("cp1252"), "latin.csv:2: byte 0xF6", "`"),
        ("latin.csv", "text\nein schöner Tag\n".encode("cp1252"), "add --encoding cp1252, if", ".path"),
        ("wide.csv", "text\nein schöner Tag\n".encode("utf-16"), "add --encoding utf-16, if", "`"),
        (
            "any.csv",
            b"text\n\xff\x81\x02\x8d a\n",
            "or add --encoding with what it was written in",
            "encoding_errors",
        ),
        ("page.dat", b"PAR1", "add --format parquet", "set `"),
        ("empty.csv", b"", "FILE: 'empty.csv' is empty", ".path"),
    ],
)
def test_what_is_wrong_is_told_by_the_commands_own_options(
    topics_run, tmp_path, capsys, monkeypatch, name, content, wanted, unwanted
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    found = problem(capsys, topics_run, name)
    assert wanted in found and unwanted not in found


def test_an_encoding_can_be_given(topics_run, tmp_path, capsys):
    given = tmp_path / "latin.csv"
    given.write_bytes("text\nschöner match\n".encode("cp1252"))
    [row] = predicted(topics_run, given, tmp_path / "out.csv", "--encoding", "cp1252")
    assert row["text"] == "schöner match"
    assert "--encoding: there is no text encoding 'cp12'" in problem(capsys, topics_run, given, "--encoding", "cp12")


def test_a_pipe_is_gone_on_with_only_where_it_says_the_same(topics_run, tmp_path, capsys, monkeypatch):
    """Pieces of what another pipe said are not kept, those of the same are."""
    from finetune.inference import predicting

    out, kept = tmp_path / "out.csv", predicting._join

    def predict(texts):
        reads, writes = os.pipe()
        os.write(writes, ("text\n" + "\n".join(texts) + "\n").encode())
        os.close(writes)
        try:
            return main(["predict", str(topics_run), f"/dev/fd/{reads}", "--format", "csv", "-o", str(out)])
        finally:
            os.close(reads)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(asking, "WINDOW", 2)
    monkeypatch.setattr(predicting, "_join", killed)
    assert predict(TEXTS) == 130 and not out.exists()
    assert predict(TEXTS) == 130 and "going on: 3 of 3 parts are there already" in said(capsys)
    monkeypatch.setattr(predicting, "_join", kept)
    assert predict(TEXTS[::-1]) == 0 and "going on" not in said(capsys)
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    alone = predicted(topics_run, written(tmp_path, ".csv", TEXTS[::-1]), tmp_path / "alone.csv")
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in alone]
