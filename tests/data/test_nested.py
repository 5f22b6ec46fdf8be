"""Lists and objects in columns: what a file says is what comes out, keys, nulls and numbers."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.core.errors import InputError
from finetune.data import checks
from finetune.data.columns import require_clusters
from finetune.data.nested import is_nested, values_of
from finetune.data.options import Source
from finetune.data.sources import as_table, read


def written(tmp_path, values, suffix=".jsonl"):
    path = tmp_path / f"data{suffix}"
    rows = [{"talk": value, "n": number} for number, value in enumerate(values)]
    text = "\n".join(map(json.dumps, rows)) if suffix == ".jsonl" else json.dumps(rows)
    path.write_text(text, encoding="utf-8")
    return read(Source(path=str(path)), "data.train", 0)


VALUES = {
    "the same keys": [
        [{"role": "user", "content": "a"}],
        [{"role": "user", "content": "b"}, {"role": "x", "content": ""}],
    ],
    "other keys": [{"a": {"x": 1}}, {"b": {"y": 2}}, {}],
    "a null that is meant": [{"a": None, "b": 1}, {"b": 2}],
    "a null in every row": [{"a": None}, {"a": None}],
    "keys in another order": [{"a": 1, "b": 2}, {"b": 3, "a": 4}],
    "numbers of two kinds": [{"a": 1}, {"a": 1.5}, {"a": 2.0}],
    "true beside one": [{"a": True}, {"a": 1}],
    "text beside lists": [{"content": "a"}, {"content": [{"type": "text", "text": "b"}]}],
    "lists beside objects": [[1], {"a": 1}],
    "a huge number": [{"a": 2**70}, {"a": 1}],
    "no value": [{"a": 1}, None],
    "an empty list": [[], [{"a": 1}]],
}


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize("name", VALUES)
def test_lists_and_objects_come_out_as_they_stand_in_the_file(tmp_path, name, suffix):
    data = written(tmp_path, VALUES[name], suffix)
    assert json.dumps(values_of(data, "talk")) == json.dumps(VALUES[name])
    assert is_nested(as_table(data)["talk"].type)
    assert json.dumps(values_of(checks.take(data, [1, 0]), "talk")) == json.dumps(VALUES[name][1::-1])


def test_what_arrow_holds_as_it_is_stays_arrow(tmp_path):
    data = written(tmp_path, VALUES["the same keys"])
    assert pa.types.is_list(as_table(data)["talk"].type)


def test_keys_that_a_parquet_file_had_to_fill_are_not_there(tmp_path):
    pq.write_table(pa.table({"talk": pa.array(VALUES["other keys"])}), tmp_path / "data.parquet")
    data = read(Source(path=str(tmp_path / "data.parquet")), "data.train", 0)
    assert values_of(data, "talk") == VALUES["other keys"]


def test_the_same_conversation_is_found_whatever_it_is_stored_as(tmp_path):
    one = [{"role": "user", "content": "A cup"}]
    stored = written(tmp_path, [one, [{"role": "tool", "content": "b", "name": None}]])
    plain = written(tmp_path, [[{"content": "a  cup", "role": "user"}]])
    assert not pa.types.is_nested(as_table(stored)["talk"].type) and pa.types.is_list(as_table(plain)["talk"].type)
    assert checks.keys(stored, ["talk"])[0] == checks.keys(plain, ["talk"])[0]
    with pytest.raises(InputError, match="a cup"):
        checks.without_leaks(stored, {"data.test": plain}, ["talk"], "refuse")


def test_objects_are_no_clusters(tmp_path):
    data = written(tmp_path, VALUES["other keys"])
    with pytest.raises(InputError, match="plain values"):
        require_clusters(data, "talk", "data.train", "task.group")
