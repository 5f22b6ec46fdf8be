"""Data files that are broken, or made to break whoever reads them, are refused in a line with file and place."""

import gzip
import io
import json
import zipfile

import datasets
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.core.errors import InputError
from finetune.data import packed
from finetune.data.addresses import unbraced
from finetune.data.formats import base
from finetune.data.json_text import DEEPEST
from finetune.data.options import Source
from finetune.data.sources import read

ROWS = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(20)]


def refused(path, **options):
    with pytest.raises(InputError) as found:
        read(Source(path=str(path), **options), "data.train", 0)
    (problem,) = found.value.problems
    assert (problem.path or "").startswith("data.train.")
    return problem


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("odd", "found"),
    [
        ("[" * 100_000, "deep in each other"),
        ('{"a": ' * 100_000, "deep in each other"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "deep in each other"),
        ('{"a": ' + "9" * 5000 + "}", "thousands of digits"),
        ("[]", "a list, where an object"),
        ('{"text": "\\ud83d"}', "half of a surrogate pair"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_json_that_is_no_data(tmp_path, odd, found, ending):
    lines = [*map(json.dumps, ROWS[:2]), odd]
    content = "\n".join(lines) if ending == "jsonl" else f"[{', '.join(lines)}]"
    problem = refused(write(tmp_path / f"rows.{ending}", content))
    if ending == "jsonl":
        assert found in problem.found and problem.where == f"{tmp_path}/rows.jsonl:3"
    elif odd == "[]":
        assert "not one list of objects" in problem.found
    else:
        assert found in problem.found


def test_what_lies_as_deep_as_data_do_is_read(tmp_path):
    inner = "[" * (DEEPEST - 2) + "1" + "]" * (DEEPEST - 2)
    path = write(tmp_path / "rows.jsonl", "\n".join(f'{{"text": "a", "more": {inner}}}' for _ in range(2)))
    assert read(Source(path=str(path)), "data.train", 0).num_rows == 2


@pytest.mark.parametrize("ending", ["csv.gz", "json.gz", "jsonl.gz"])
def test_a_file_that_grows_beyond_all_measure_is_not_unpacked(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(packed, "HARMLESS", 1 << 20)
    path = write(tmp_path / f"rows.{ending}", gzip.compress(b"text,label\n" + b"a,b\n" * 2_000_000))
    problem = refused(path)
    assert "unpacks to more than 200 times its size" in problem.found


def test_a_workbook_that_grows_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "HARMLESS", 1 << 20)
    book, file = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["text", "label"])
    book.save(file)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/more.xml", b" " * (8 << 20))
    problem = refused(write(tmp_path / "rows.xlsx", file.getvalue()))
    assert "unpacks to more than 200 times its size" in problem.found


@pytest.mark.parametrize("how", ["laughs", "outside"])
def test_a_workbook_brings_no_entities(tmp_path, how):
    (tmp_path / "secret").write_text("the secret")
    entities = '<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    if how == "outside":
        entities = f'<!ENTITY i SYSTEM "file://{tmp_path}/secret">'
    book, file = openpyxl.Workbook(), io.BytesIO()
    for row in ROWS:
        book.active.append(list(row.values()))
    book.save(file)
    changed = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            part = old.read(name).decode()
            if name == "xl/sharedStrings.xml":
                head, _, rest = part.partition("<sst")
                part = f"{head}<!DOCTYPE sst [{entities}]><sst{rest}".replace("text 3<", "&i;<")
                assert "&i;" in part
            new.writestr(name, part)
    path = write(tmp_path / "rows.xlsx", changed.getvalue())
    try:
        found = read(Source(path=str(path), names=["text", "label"]), "data.train", 0)
    except InputError as error:
        assert "not a readable Excel workbook" in str(error)
    else:
        assert max(map(len, found["text"])) < 100 and "the secret" not in found["text"]


def test_a_line_without_an_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "LONGEST", 1000)
    monkeypatch.setattr(base.text_blocks, "__defaults__", (100,))
    problem = refused(write(tmp_path / "rows.csv", "text,label\n" + "a" * 5000))
    assert "has a line of more than 1,000 bytes" in problem.found


@pytest.mark.parametrize("name", ["idna", "undefined", "rot13", "hex", "zip", "a\0b", "no-such"])
@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_only_encodings_of_files_are_taken(tmp_path, name, errors):
    path = write(tmp_path / "rows.csv", "text,label\na,é\n")
    problem = refused(path, encoding=name, encoding_errors=errors)
    assert problem.path == "data.train.encoding" and "no text encoding" in problem.found


def test_a_map_is_a_list_of_pairs_and_other_types_are_named(tmp_path):
    pairs = pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64()))
    table = pa.table({"text": ["a", "b"], "more": pairs})
    pq.write_table(table, tmp_path / "rows.parquet")
    found = read(Source(path=str(tmp_path / "rows.parquet")), "data.train", 0)
    assert found["more"][0] == [{"key": "k", "value": 1}]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.duration("s")])
def test_times_that_no_calendar_has_are_named(tmp_path, kind, nested):
    times = pa.array([2**62] * 2, kind)
    if nested:
        times = pa.array([[{"at": 2**62}]] * 2, pa.list_(pa.struct([("at", kind)])))
    datasets.Dataset(pa.table({"text": ["a", "b"], "when": times})).save_to_disk(tmp_path / "saved")
    assert "no year from 1 to 9999 in 'when'" in refused(tmp_path / "saved").found


def saved(tmp_path):
    folder = tmp_path / "saved"
    datasets.Dataset.from_list(ROWS).save_to_disk(folder)
    return folder, next(folder.glob("*.arrow"))


def test_broken_text_in_a_mapped_file_is_found_before_it_is_used(tmp_path):
    folder, arrow = saved(tmp_path)
    arrow.write_bytes(arrow.read_bytes().replace(b"text 1", b"\xff\xfe\xff 1", 1))
    assert "not a readable dataset" in refused(folder).found


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
@pytest.mark.parametrize("content", ["[]", "null", '"x"', '{"_data_files": 5, "features": "x"}', "[" * 10_000])
def test_a_saved_dataset_whose_papers_are_wrong(tmp_path, name, content):
    folder, _ = saved(tmp_path)
    write(folder / name, content)
    problem = refused(folder)
    assert "is not a readable dataset of `save_to_disk`: " in problem.found
    assert not problem.found.endswith(("Error", ": "))


@pytest.mark.parametrize("splits", [["../elsewhere"], [".."], "train", [1], None, ["/"]])
def test_the_splits_of_a_saved_dataset_lie_inside_it(tmp_path, splits):
    folder = tmp_path / "saved"
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(folder)
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "elsewhere")
    write(folder / "dataset_dict.json", json.dumps({"splits": splits}))
    wanted = splits[0] if isinstance(splits, list) and isinstance(splits[0], str) else "train"
    assert "does not list names of splits" in refused(folder, split=wanted).found


@pytest.mark.parametrize(
    "template", ["{text:>9999999999}", "{text:99999999}", "{text:.2000000}", "{text!r}", "{text.x}"]
)
def test_a_template_cannot_ask_for_more_than_there_is_room_for(tmp_path, template):
    path = write(tmp_path / "rows.csv", "text,label\na,b\n")
    assert refused(path, columns={"new": template}).path == "data.train.columns.new"


@pytest.mark.parametrize("braces", ["{0..999999999}", "{0..999}{0..999}", "{00..99}{00..99}{00..99}"])
def test_an_address_cannot_stand_for_more_files_than_anyone_has(braces):
    assert "stands for more than 100,000 files" in refused(f"https://host.invalid/{braces}.parquet").found


def test_braces_with_more_digits_than_a_number_has_are_a_name():
    assert [*unbraced("{0.." + "9" * 5000 + "}")] == ["0.." + "9" * 5000]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_whose_name_is_no_text_is_told(tmp_path, streaming):
    pq.write_table(pa.table({"a_name": ["a", "b"]}), tmp_path / "rows.parquet", store_schema=False)
    path = write(tmp_path / "rows.parquet", (tmp_path / "rows.parquet").read_bytes().replace(b"a_name", b"a_na\xdbe"))
    options = {"streaming": True, "limit": 1} if streaming else {}
    assert "is not a readable parquet file" in refused(path, **options).found
