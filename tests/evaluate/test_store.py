"""The prediction store gives back what was put in, in order, or refuses."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluate.store import Predictions, read


def some(example=(2, 0, 1), **changes):
    n = len(example)
    columns = {
        "example": np.array(example, np.int64),
        "prediction": [f"p{i}" for i in example],
        "reference": [f"r{i}" for i in example],
        "score": np.array(example, float) / 10,
        "loss": np.array(example, float),
        "weight": np.ones(n),
        "probabilities": np.array([[i, -i] for i in example], np.float32),
        "labels": ("sport", "überall"),
    }
    return Predictions(**{**columns, **changes})


def test_rows_come_back_sorted_and_whole(tmp_path):
    some().write(tmp_path / "a" / "test.parquet")
    back = read(tmp_path / "a" / "test.parquet")
    assert back.example.tolist() == [0, 1, 2] and back.example.dtype == np.int64
    assert back.prediction == ["p0", "p1", "p2"] and back.reference == ["r0", "r1", "r2"]
    assert back.score.tolist() == [0.0, 0.1, 0.2]
    assert back.loss.tolist() == [0.0, 1.0, 2.0] and back.weight.tolist() == [1.0] * 3
    assert back.probabilities.dtype == np.float32
    assert back.probabilities.tolist() == [[0, 0], [1, -1], [2, -2]]
    assert back.labels == ("sport", "überall")


def test_file_has_the_documented_columns(tmp_path):
    some().write(tmp_path / "test.parquet")
    schema = pq.read_schema(tmp_path / "test.parquet")
    assert {field.name: str(field.type).replace("element", "item") for field in schema} == {
        "example": "int64",
        "prediction": "string",
        "reference": "string",
        "score": "double",
        "probabilities": "list<item: float>",
        "loss": "double",
        "weight": "double",
    }
    assert json.loads(schema.metadata[b"labels"]) == ["sport", "überall"]


def test_margins_come_back_where_there_are_pairs(tmp_path):
    some(margin=np.array([2.5, 0.0, -1.5])).write(tmp_path / "pairs.parquet")
    some().write(tmp_path / "plain.parquet")
    assert read(tmp_path / "pairs.parquet").margin.tolist() == [0.0, -1.5, 2.5]
    assert read(tmp_path / "plain.parquet").margin is None
    with pytest.raises(ValueError, match="margin has 1 rows"):
        some(margin=np.zeros(1))


def test_missing_columns_come_back_as_none(tmp_path):
    path = tmp_path / "generated.parquet"
    some(loss=None, weight=None, probabilities=None, labels=()).write(path)
    back = read(path)
    assert back.loss is None and back.weight is None and back.probabilities is None and back.labels == ()


def test_a_folder_named_like_a_partition_adds_nothing(tmp_path):
    path = tmp_path / "score=7" / "test.parquet"
    some().write(path)
    assert read(path).score.tolist() == [0.0, 0.1, 0.2]


def test_an_example_scored_twice_is_refused():
    with pytest.raises(ValueError, match=r"more than once: \[1\]"):
        some(example=(1, 0, 1))


@pytest.mark.parametrize("column", ["prediction", "reference", "score", "loss", "weight", "probabilities"])
def test_columns_of_another_length_are_refused(column):
    with pytest.raises(ValueError, match=column):
        some(**{column: getattr(some(), column)[:2]})


def test_probabilities_without_their_labels_are_refused():
    with pytest.raises(ValueError, match="1 labels"):
        some(labels=("sport",))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "test.parquet"
    some().write(path)
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        some(prediction=["a", "b", "\ud800"]).write(path)  # half a surrogate pair has no UTF-8
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@given(st.lists(st.tuples(st.text(), st.text(), st.floats(width=64)), max_size=6), st.randoms())
def test_anything_survives_the_round_trip(tmp_path_factory, rows, random):
    path = tmp_path_factory.mktemp("store") / "test.parquet"
    order = random.sample(range(len(rows)), len(rows))
    shuffled = [rows[i] for i in order]
    Predictions(
        example=np.array(order, np.int64),
        prediction=[row[0] for row in shuffled],
        reference=[row[1] for row in shuffled],
        score=np.array([row[2] for row in shuffled], float),
    ).write(path)
    back = read(path)
    assert list(zip(back.prediction, back.reference, strict=True)) == [row[:2] for row in rows]
    np.testing.assert_array_equal(back.score, np.array([row[2] for row in rows], float))
