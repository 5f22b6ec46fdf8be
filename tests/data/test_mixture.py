"""Mixtures: several sources, each learnt from as often as its weight says, and held out once."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.errors import InputError
from finetune.data import Reading, load_splits
from finetune.data.columns import require_text
from finetune.data.mixture import PORTION, codes, joined, weighted
from finetune.data.options import DataOptions, Portion, Split
from finetune.data.sources import EXAMPLE
from tests.tiny import dataset


def check(data, at):
    require_text(data, "text", at, "task.text")


def rows(prefix, count):
    return [f"{prefix} {number}" for number in range(count)]


@pytest.fixture
def portions(tmp_path):
    """portions(a=(30, 2.0), b=(10, 0.5)): files of so many rows, and their entries in a recipe."""

    def write(**sizes):
        found = []
        for name, (count, weight) in sizes.items():
            (tmp_path / f"{name}.jsonl").write_text(
                "".join(json.dumps({"text": text, name: 1}) + "\n" for text in rows(name, count))
            )
            found.append(Portion(path=str(tmp_path / f"{name}.jsonl"), weight=weight))
        return found

    return write


def split(options, seed=0):
    return load_splits(options, {}, seed, Reading(["text"], check))


def test_each_source_is_learnt_from_as_often_as_its_weight_says(portions):
    found = split(DataOptions(train=portions(a=(30, 2.0), b=(10, 0.5))))
    counts = Counter(found.train["text"])
    assert sum(found.train[PORTION][row] == "a" for row in range(len(found.train))) == 60
    assert {counts[text] for text in rows("a", 30)} == {2}
    assert sorted(counts[text] for text in rows("b", 10)) == [0] * 5 + [1] * 5
    assert found.facts["portions"]["a"] | {"source": ""} == {"source": "", "weight": 2.0, "examples": 60}
    assert found.facts["distinct"] == 35
    assert list(found.train[EXAMPLE]) == list(range(65))


def test_weights_change_nothing_that_is_held_out(portions):
    parts = []
    for weight in (0.3, 3.0):
        options = DataOptions(train=portions(a=(30, weight), b=(10, 1.0)), split=Split(test=8, validation=4))
        found = split(options)
        assert not set(found.train["text"]) & set(found.held_out["test"]["text"])
        parts.append((found.held_out["test"]["text"][:], found.validation["text"][:]))
    assert parts[0] == parts[1]
    assert max(Counter(parts[0][0]).values()) == 1, "held out once, whatever the weight"


def test_parts_may_keep_the_proportions_of_the_sources(portions):
    options = DataOptions(train=portions(a=(30, 1.0), b=(10, 1.0)), split=Split(test=8, stratify=PORTION))
    assert Counter(split(options).held_out["test"][PORTION][:]) == {"a": 6, "b": 2}


def test_a_column_that_a_source_lacks_is_null_there(portions):
    found = split(DataOptions(train=portions(a=(3, 1.0), b=(2, 1.0))))
    assert found.train["a"][:] == [1, 1, 1, None, None]


@given(
    weights=st.lists(st.floats(0.01, 4), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 40), min_size=4, max_size=4),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_counts_are_exact_and_draws_depend_on_nothing_else(weights, sizes, seed):
    names = [f"s{number}" for number in range(len(weights))]
    parts = {
        name: dataset(text=rows(name, size), example=list(range(size)))
        for name, size in zip(names, sizes, strict=False)
    }
    whole = joined(parts, "data.train")
    asked = dict(zip(names, weights, strict=True))
    found, counts, distinct = weighted(whole, asked, seed)
    for name, weight in asked.items():
        size = parts[name].num_rows
        own = Counter(text for text, portion in zip(found["text"], found[PORTION], strict=True) if portion == name)
        assert counts[name] == own.total() == int(weight) * size + round((weight - int(weight)) * size)
        assert not own or max(own.values()) - min(own.get(text, 0) for text in parts[name]["text"]) <= 1
    assert distinct == len(set(found["text"]))
    assert np.bincount(codes(whole, names), minlength=len(names)).tolist() == [p.num_rows for p in parts.values()]
    # A source's draw is its own: another source's weight moves nothing in it.
    again, _, _ = weighted(whole, {**asked, names[0]: 1.0}, seed)
    for name in names[1:]:
        assert [t for t, p in zip(again["text"], again[PORTION], strict=True) if p == name] == [
            t for t, p in zip(found["text"], found[PORTION], strict=True) if p == name
        ]


def test_what_cannot_be_mixed_is_refused():
    numbers, texts = dataset(text=["a"], label=[1], example=[0]), dataset(text=["b"], label=["x"], example=[0])
    with pytest.raises(InputError, match="column 'label' is of several kinds"):
        joined({"one": numbers, "two": texts}, "data.train")
    with pytest.raises(InputError, match="'one' has a column 'portion'"):
        joined({"one": dataset(text=["a"], portion=["x"], example=[0])}, "data.train")


def test_names_of_sources():
    named = [("a/b.jsonl.gz", "b"), ("hub:org/set@main", "set"), ("package:corpus/news/data", "data"), ("x/*.csv", "*")]
    for path, title in named:
        assert Portion(path=path).title == title
    assert Portion(path="a.csv", name="mine").title == "mine"
    with pytest.raises(ValueError, match="several sources of train are called a"):
        DataOptions(train=[Portion(path="x/a.csv"), Portion(path="y/a.csv")])


def test_a_mistake_in_one_source_is_placed_there(portions, tmp_path):
    [good] = portions(a=(3, 1.0))
    (tmp_path / "c.jsonl").write_text('{"texts": "x"}\n')
    with pytest.raises(InputError, match=r"data\.train\.1"):
        split(DataOptions(train=[good, Portion(path=str(tmp_path / "c.jsonl"))]))


def test_a_weight_that_leaves_nothing_of_a_source_is_refused(portions):
    with pytest.raises(InputError, match=r"0\.01 leaves none of the 10 training examples of 'b'") as caught:
        split(DataOptions(train=portions(a=(30, 2.0), b=(10, 0.01))))
    assert caught.value.problems[0].path == "data.train.1.weight"
