"""Several files as one table: by a pattern, or in a folder of parquet files; and whose a folder is."""

import gzip

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from finetune.core.errors import InputError
from finetune.data.formats.base import FORMATS
from finetune.data.options import Source
from finetune.data.sources import read

AT = "data.train.path"


@pytest.fixture
def written(tmp_path):
    """Writes files by name, and gives their folder."""

    def write(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, dict):
                pa.parquet.write_table(pa.table(content), path)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def load(path, **options):
    return read(Source(path=str(path), **options), "data.train", 0)


def test_files_are_read_in_the_order_of_their_names(written):
    folder = written(s__b_csv="text,label\nb,2\n", s__a_csv="text,label\na,1\nA,3\n", s__c_tsv="text\nno\n")
    data = load(folder / "s" / "*.csv")
    assert list(data["text"]) == ["a", "A", "b"] and list(data["label"]) == [1, 3, 2]
    assert list(data["example"]) == [0, 1, 2]
    assert list(load(folder / "s" / "?.csv", limit=2)["example"]) in ([0, 1], [0, 2], [1, 2])


def test_a_pattern_starts_from_the_working_directory(written, monkeypatch):
    monkeypatch.chdir(written(s__a_jsonl='{"text": "a"}\n', s__in__b_jsonl='{"text": "b"}\n'))
    assert list(load("s/**/*.jsonl")["text"]) == ["a", "b"]
    assert list(load("./s/[a]*")["text"]) == ["a"]


def test_some_may_be_compressed(written):
    packed = gzip.compress(b"text\nb\n")
    assert list(load(written(a_csv="text\na\n", b_csv_gz=packed) / "*.csv*")["text"]) == ["a", "b"]


def test_columns_that_a_file_lacks_are_null_there(written):
    folder = written(a_csv="text,score\na,1\n", b_csv="label,text\nx,b\n")
    data = load(folder / "*.csv")
    assert data.column_names == ["text", "score", "label", "example"]
    assert data[1] == {"text": "b", "score": None, "label": "x", "example": 1} and data[0]["score"] == 1


def test_numbers_of_csv_files_are_numbers_where_all_files_have_them(written):
    folder = written(a_csv="code\n1\n", b_csv="code\n2\n", c_csv="code\nA1\n")
    assert list(load(folder / "[ab].csv")["code"]) == [1, 2]
    assert list(load(folder / "*.csv")["code"]) == ["1", "2", "A1"]


def test_columns_of_several_kinds_name_the_files(written, refused):
    folder = written(a_jsonl='{"n": 1}\n{"n": 2}\n', b_jsonl="\n{}\n", c_jsonl='{"n": "x"}\n')
    with refused(AT, "column 'n' holds numbers (", "a.jsonl', row 1 and after", "text (", "c.jsonl', row 1 and after"):
        load(folder / "*.jsonl")


def test_an_error_names_its_file(written, refused):
    folder = written(a_csv="text,label\na,1\n", b_csv="text,label\na,1\nb,1,2\n", c_csv_gz="text,label\na,1\n")
    with refused(AT, "3 values") as seen:
        load(folder / "[ab].csv")
    assert seen.problem.where.endswith("b.csv:3")
    with refused(AT, "c.csv.gz' is not compressed"):
        load(folder / "[ac].csv*")


def test_nothing_matches_and_several_formats(written, refused):
    folder = written(a_csv="text\na\n", b_jsonl='{"text": "b"}\n', c_thing="x")
    with refused(AT, "there is no", "*.parquet", "holds: a.csv, b.jsonl, c.thing"):
        load(folder / "*.parquet")
    with refused(AT, "files of several formats: csv ('", "a.csv') and jsonl ("):
        load(folder / "[ab].*")
    with refused(AT, "c.thing' is cannot be told from its name", "data.train.format"):
        load(folder / "*")


def test_a_name_that_looks_like_a_pattern_is_a_name(written):
    folder = written(
        **{"run[1]__a*_csv": "text\nmine\n", "run[1]__ab_csv": "text\nother\n", "run1__a_csv": "text\nno\n"}
    )
    assert list(load(folder / "run[1]" / "a*.csv")["text"]) == ["mine"]
    assert list(load(folder / "run[1]" / "?b.csv")["text"]) == ["other"]


# --- parquet


def test_a_folder_of_parquet_files(written):
    folder = written(s__1_parquet={"text": ["b"]}, s__0_parquet={"text": ["a"], "n": [1]})
    (folder / "s" / "_SUCCESS").touch()
    (folder / "s" / ".0.parquet.crc").touch()
    for path, options in ((folder / "s", {}), (folder / "s", {"format": "parquet"}), (folder / "s" / "*.parquet", {})):
        data = load(path, **options)
        assert list(data["text"]) == ["a", "b"] and list(data["n"]) == [1, None]
    (folder / "s").rename(folder / "s.parquet")
    assert list(load(folder / "s.parquet")["text"]) == ["a", "b"]


def test_shards_whose_types_differ_in_width(written):
    folder = written(
        a_parquet={"text": pa.array(["a"], pa.large_string()), "n": pa.array([1], pa.int32())},
        b_parquet={"text": pa.array(["b"]), "n": pa.array([2**40])},
    )
    data = load(folder)
    assert list(data["text"]) == ["a", "b"] and list(data["n"]) == [1, 2**40]


def test_a_broken_shard_is_named(written, refused):
    folder = written(a_parquet={"text": ["a"]}, b_parquet="none")
    with refused(AT, "b.parquet' is not a readable parquet file"):
        load(folder)


# --- folders


@pytest.fixture
def folders(tmp_path):
    """One folder in each format that folders may be in, by the format."""
    (tmp_path / "folder" / "sport").mkdir(parents=True)
    (tmp_path / "folder" / "sport" / "1.txt").write_text("Goal")
    (tmp_path / "parquet").mkdir()
    pa.parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "parquet" / "0.parquet")
    rows = datasets.Dataset.from_dict({"text": ["a"]})
    rows.save_to_disk(tmp_path / "dataset")
    datasets.DatasetDict(train=rows).save_to_disk(tmp_path / "datasets")
    return {"folder": "folder", "parquet": "parquet", "dataset": "dataset", "datasets": "dataset"}


def test_a_folder_is_told_by_what_it_holds(folders, tmp_path):
    for name, owner in folders.items():
        assert [each.name for each in FORMATS.all().values() if each.owns(tmp_path / name)] == [owner]
        assert read(Source(path=str(tmp_path / name)), "data.train", 0).num_rows == 1
    assert {each.name for each in FORMATS.all().values() if each.folder or each.holds} == set(folders.values())


def test_a_folder_that_holds_something_else(tmp_path, folders, refused):
    (tmp_path / "parquet" / "notes.txt").write_text("x")
    with refused(AT, "has no text files in sub-folders, and no table", "only .parquet files", "`save_to_disk`"):
        load(tmp_path / "parquet")
    with refused(AT, "is a folder, where a parquet file is expected"):
        load(tmp_path / "parquet", format="parquet")
    (tmp_path / "dataset" / "class").mkdir()
    (tmp_path / "dataset" / "class" / "1.txt").write_text("x")
    with refused(AT, "may be of several formats", "to dataset or folder"):
        load(tmp_path / "dataset")
    assert load(tmp_path / "dataset", format="folder")["text"] == ["x"]


def test_split_is_for_what_has_splits(folders, tmp_path, refused):
    for name in ("folder", "parquet"):
        with refused("data.train.split", "has no splits"):
            load(tmp_path / name, split="train")
    with pytest.raises(InputError):
        load(tmp_path / "dataset", split="train")
