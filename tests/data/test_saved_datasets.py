"""What `save_to_disk` of datasets wrote: mapped, with the names of its labels, and its splits by name."""

import shutil

import datasets
import numpy as np
import pyarrow as pa
import pytest

from finetune.data.options import Source
from finetune.data.sources import as_table, read

AT = "data.train.path"


def rows(*texts):
    label = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label, "n": datasets.Value("int32")})
    content = {"text": list(texts), "label": [(1, 0, -1, None)[place % 4] for place in range(len(texts))]}
    return datasets.Dataset.from_dict({**content, "n": list(range(len(texts)))}, features=features)


def load(path, **options):
    return read(Source(path=str(path), **options), "data.train", 0)


def test_labels_become_their_names(tmp_path):
    rows("a", "b", "c", "d").save_to_disk(tmp_path / "set")
    data = load(tmp_path / "set")
    assert list(data["text"]) == ["a", "b", "c", "d"] and list(data["label"]) == ["good", "bad", None, None]
    assert data.column_names == ["text", "label", "n", "example"]
    assert as_table(load(tmp_path / "set", format="dataset")).equals(as_table(data))


def test_shards_and_a_selection(tmp_path):
    rows(*map(str, range(100))).select(range(90, 4, -1)).save_to_disk(tmp_path / "set", num_shards=3)
    data = load(tmp_path / "set", columns={"said": "number {text}"})
    assert list(data["text"]) == [str(number) for number in range(90, 4, -1)] and data["said"][0] == "number 90"


def test_a_split_is_named(tmp_path, refused):
    both = datasets.DatasetDict(train=rows("a", "b"), test=rows("c"))
    both.save_to_disk(tmp_path / "sets")
    assert list(load(tmp_path / "sets")["text"]) == ["a", "b"]
    assert list(load(tmp_path / "sets", split="test")["text"]) == ["c"]
    for wanted in ("tests", "../sets/test"):
        with refused("data.train.split", f"has no split '{wanted}'", "test, train"):
            load(tmp_path / "sets", split=wanted)
    datasets.DatasetDict(dev=rows("d")).save_to_disk(tmp_path / "dev")
    with refused("data.train.split", "has no split 'train'", "choose from: dev"):
        load(tmp_path / "dev")
    with refused("data.train.split", "one dataset without splits", "leave `split` out"):
        load(tmp_path / "sets" / "train", split="train")


def test_it_is_mapped_and_not_copied(tmp_path):
    content = np.zeros((300, 20_000), np.float64)
    datasets.Dataset.from_dict({"text": ["a"] * 300, "values": content}).save_to_disk(tmp_path / "set")
    before = pa.total_allocated_bytes()
    data = load(tmp_path / "set")
    assert data.num_rows == 300 and data.data.nbytes > 40e6
    assert pa.total_allocated_bytes() - before < 1e6


def test_nothing_is_written(tmp_path):
    rows("a").save_to_disk(tmp_path / "set")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    load(tmp_path / "set")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("broken", ["data-00000-of-00001.arrow", "state.json", "dataset_info.json"])
def test_what_is_broken_or_missing_is_told_in_a_line(tmp_path, refused, broken):
    rows("a").save_to_disk(tmp_path / "set")
    (tmp_path / "set" / broken).write_bytes(b"no")
    with refused(AT, "set' is not a readable dataset of `save_to_disk`"):
        load(tmp_path / "set")
    (tmp_path / "set" / broken).unlink()
    with refused(AT, "set' is not a readable dataset of `save_to_disk`"):
        load(tmp_path / "set", format="dataset")


def test_a_split_whose_folder_is_gone(tmp_path, refused):
    datasets.DatasetDict(train=rows("a"), test=rows("b")).save_to_disk(tmp_path / "sets")
    shutil.rmtree(tmp_path / "sets" / "test")
    with refused(AT, "not a readable dataset"):
        load(tmp_path / "sets", split="test")
    (tmp_path / "sets" / "dataset_dict.json").write_text("{}")
    with refused(AT, "not a readable dataset"):
        load(tmp_path / "sets")
