"""Every way that a parquet file has to store a value, read as that value."""

import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet
import pytest

from finetune.data.columns import require_labels, require_text

AT = "data.train"


@pytest.fixture
def parquet(tmp_path, load):
    def write_and_read(columns=None, **arrays):
        pyarrow.parquet.write_table(pa.table(arrays), tmp_path / "source.parquet")
        content = (tmp_path / "source.parquet").read_bytes()
        return load("a.parquet", content, columns=columns or {})

    return write_and_read


def nested(kind):
    return pa.array([["a", "b"], None, ["c"]], kind)


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", "b"], pa.string_view()),
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.large_string()).dictionary_encode(),
    ],
    ids=lambda array: str(array.type).partition(",")[0],
)
def test_text_is_text(parquet, array):
    data = parquet(text=array, label=array)
    require_text(data, "text", AT, "task.text")
    require_labels(data, "label", AT, "task.label")
    assert list(data["text"]) == ["a", "b"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_view(pa.string()),
        pa.large_list_view(pa.string()),
        pa.list_(pa.string_view()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
        pa.large_list(pa.string_view()),
    ],
    ids=str,
)
def test_lists_are_lists(parquet, kind):
    assert list(parquet(messages=nested(kind))["messages"]) == [["a", "b"], None, ["c"]]


def test_objects_hold_plain_values_too(parquet):
    inner = pa.array(["user", "assistant"], pa.string_view()).dictionary_encode()
    turns = pa.StructArray.from_arrays(
        [pa.array(["user", "assistant"]).dictionary_encode(), pa.array([1, 2])], ["r", "n"]
    )
    assert inner.type.value_type == pa.string_view()
    assert list(parquet(turn=turns)["turn"]) == [{"r": "user", "n": 1}, {"r": "assistant", "n": 2}]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(4)], ids=str)
def test_bytes_become_the_text_that_they_are_by_following_the_advice(parquet, refused, kind):
    values = pa.array([b"goal", b"bank"], kind)
    data = parquet(text=values)
    for require, option in ((require_text, "task.text"), (require_labels, "task.label")):
        with refused(option, "holds bytes", "`text: '{text}'` in data.train.columns"):
            require(data, "text", AT, option)
    made = parquet(columns={"text": "{text}", "prompt": "Topic of {text:.2}?"}, text=values)
    assert list(made["text"]) == ["goal", "bank"] and made["prompt"][1] == "Topic of ba?"


def test_bytes_that_are_no_text_are_never_shown(parquet, refused):
    values = pa.array([b"good", None, b"\xff\xd8\xff"])
    with refused("task.text", "not text in UTF-8") as seen:
        require_text(parquet(image=values), "image", AT, "task.text")
    assert "{image}" not in str(seen.problem), "which would be refused in turn"
    with refused("data.train.columns.text", "row 3 are not text in utf-8"):
        parquet(columns={"text": "{image}"}, image=values)


@pytest.mark.parametrize(
    "array, shown",
    [
        (pa.array([12, 7]), "12"),
        (pa.array([True, False]), "True"),
        (pa.array([Decimal("1.50"), Decimal("2.00")], pa.decimal32(5, 2)), "1.50"),
        (pa.array([datetime.date(2020, 1, 31)] * 2), "2020-01-31"),
        (pa.array([b"\x01" * 16, b"\x02" * 16], pa.uuid()), "01010101-0101-0101-0101-010101010101"),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_plain_values_become_text_by_a_template(parquet, array, shown):
    assert parquet(columns={"text": "{value}"}, value=array)["text"][0] == shown


def test_lists_are_not_advised_to_be_shown(parquet, refused):
    with refused("task.text", "name a column of plain values") as seen:
        require_text(parquet(text=nested(pa.list_(pa.string()))), "text", AT, "task.text")
    assert "{text}" not in str(seen.problem), "a template refuses lists"
