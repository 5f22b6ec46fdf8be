"""What tasks require of a column."""

import pyarrow as pa
import pytest

from finetune.data.columns import require_column, require_labels, require_text
from finetune.data.sources import as_dataset

NAN = float("nan")


def table(**columns):
    return as_dataset(pa.table({"example": pa.array([10, 20, 30]), **columns}))


def test_missing_column(refused):
    data = table(text=["a", "b", "c"])
    with refused("task.text", "data.train has no column 'txet'", "did you mean 'text'? (choose from: text)"):
        require_column(data, "txet", "data.train", "task.text")
    with refused("task.text", "no column 'txet'"):
        require_text(data, "txet", "data.train", "task.text")
    with refused("task.label", "no column 'labels'"):
        require_labels(data, "labels", "data.train", "task.label")


def test_good_columns():
    for text in (["a", "", "c"], pa.array(["a", "b", "c"], pa.large_string())):
        require_text(table(text=text), "text", "data.train", "task.text")
    for labels in (["a", "b", "none"], [1, 0, 1], [True, False, True], pa.array(["a", "b", "a"], pa.large_string())):
        require_labels(table(label=labels), "label", "data.train", "task.label")


@pytest.mark.parametrize(
    "values, text",
    [
        ([1, None, 3], "holds numbers, such as 1"),
        ([None, 2.5, NAN], "holds numbers, such as 2.5"),
        ([True, False, True], "holds bool"),
        ([["a"], ["b"], []], "holds list"),
        (["a", None, None], "has no text in rows 21, 31"),
        ([None, None, None], "has no text in rows 11, 21, 31"),
        (["", " ", "\n"], "every text in column 'text' of data.train is empty"),
    ],
)
def test_refused_text(refused, values, text):
    with refused("task.text", text):
        require_text(table(text=values), "text", "data.train", "task.text")


def test_numbers_in_place_of_text_say_how_to_make_them_text(load, refused):
    with refused("task.text", "such as 12", "`text: '{text}'` in data.train.columns"):
        require_text(load("a.csv", "text\n12\n7\n"), "text", "data.train", "task.text")
    made = load("a.csv", "text\n12\n7\n", columns={"text": "{text}"})
    require_text(made, "text", "data.train", "task.text")


@pytest.mark.parametrize(
    "values, text",
    [
        ([1.0, NAN, 0.0], "has no label but NaN in row 21"),
        ([1, None, 0], "has no label in row 21"),
        ([None, None, None], "has no label in rows 11, 21, 31"),
        ([1.0, 2.0, 0.5], "holds decimal numbers, such as 1.0"),
        (["a", " ", "b"], "has an empty label in row 21"),
        (["a", "b", "NaN"], "has the label 'nan' in row 31"),
        ([[1], [2], [3]], "holds list"),
    ],
)
def test_refused_labels(refused, values, text):
    with refused("task.label", text):
        require_labels(table(label=values), "label", "data.train", "task.label")


@pytest.mark.parametrize("gap, text", [("", "no label in row 2"), ("NaN", "no label but NaN in row 2")])
def test_gap_among_whole_number_labels_of_a_csv(load, refused, gap, text):
    data = load("a.csv", f"text,label\na,1\nb,{gap}\nc,0\n")
    with refused("task.label", text):
        require_labels(data, "label", "data.train", "task.label")


@pytest.mark.parametrize("gap, text", [("", "an empty label in row 2"), ("nan", "the label 'nan' in row 2")])
def test_gap_among_text_labels_of_a_csv(load, refused, gap, text):
    data = load("a.csv", f"text,label\na,x\nb,{gap}\nc,y\n")
    with refused("task.label", text):
        require_labels(data, "label", "data.train", "task.label")


def test_long_list_of_rows_is_cut(refused):
    data = as_dataset(pa.table({"label": pa.nulls(12, pa.string())}))
    with refused("task.label", "in rows 1, 2, 3, 4, 5 and 7 more"):
        require_labels(data, "label", "data.train", "task.label")
