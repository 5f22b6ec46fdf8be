from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.errors import InputError
from finetune.recipe.tree import Origin
from finetune.recipe.yaml_text import dump, one_line, parse


def read(text: str):
    node, problems = parse(text, lambda line: Origin(f"f:{line}"))
    assert problems == []
    return node.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5e-5", 5e-5),
        ("5.0e-5", 5e-5),
        (".5", 0.5),
        ("3", 3),
        ("-2", -2),
        ("007", 7),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("2020-01-01", "2020-01-01"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        (".nan", ".nan"),
        (".inf", ".inf"),
        ("'3'", "3"),
        ("0x10", "0x10"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text, value):
    found = read(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_texts_whatever_they_look_like():
    assert read("{1: a, true: b, null: c}") == {"1": "a", "true": "b", "null": "c"}


def test_every_value_knows_the_line_of_its_key():
    node, _ = parse("a:\n  b:\n    c\nd:\n  - 1\n  - x: 2\n", lambda line: Origin(f"f:{line}"))
    assert [node.find(keys).origin.where for keys in (["a"], ["a", "b"], ["d"], ["d", 1], ["d", 1, "x"])] == [
        "f:1",
        "f:2",
        "f:4",
        "f:6",
        "f:6",
    ]


def test_anchors_and_aliases_work():
    assert read("a: &x {k: 1}\nb: *x") == {"a": {"k": 1}, "b": {"k": 1}}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb:\n\tc: 1\n", 3, "spaces"),
        ("a: b: c\n", 1, "colon"),
        ("a: [1, 2\nb: 1\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "one YAML document"),
        ("a: *nothing\n", 1, "anchor"),
        ("a: 1\nb: \x07\n", 2, "control character"),
    ],
)
def test_broken_yaml_is_one_problem_with_its_line(text, line, said):
    with pytest.raises(InputError) as caught:
        parse(text, lambda line: Origin(f"f:{line}"))
    [problem] = caught.value.problems
    assert problem.where == f"f:{line}"
    assert said in str(problem)


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", "line 1"),
        ("t:\n  a: 1\n  a: 3\n", "t.a", "line 2"),
        ("a: !!python/object:os.system {}\n", "a", "tag"),
        ("a: !secret x\n", "a", "tag"),
        ("a: !!int x\n", "a", "tag"),
        ("? [1, 2]\n: 3\n", None, "a key must be a word"),
        ("a: &x [*x]\n", "a.0", "contains itself"),
        ("a: 1e999\n", "a", "too large"),
    ],
)
def test_mistakes_that_leave_a_tree(text, path, said):
    _, problems = parse(text, lambda line: Origin(f"f:{line}"))
    [problem] = problems
    assert problem.path == path
    assert said in problem.found


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**15), 10**15),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
        st.sampled_from(["no", "1e-3", "5", "null", "true", "~", "", "- a", "a: b", "#", "2020-01-01", "0x1", "1e5"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@given(values)
def test_what_is_dumped_is_read_back(value):
    assert read(dump({"key": value})) == {"key": value}
    line = one_line({"key": value})
    assert "\n" not in line
    back = read(line)["key"]
    assert back == value or (isinstance(value, float) and math.isclose(back, value))


MERGED = """\
base: &base {epochs: 1, rate: 2}
other: &other
  rate: 5
  size: 6
one: {<<: *base, rate: 3}
two:
  rate: 4
  <<: *other
both:
  <<: [*base, *other]
"""


def test_merge_keys_lay_a_section_below_its_own_keys():
    found = read(MERGED)
    assert found["one"] == {"epochs": 1, "rate": 3}
    assert found["two"] == {"rate": 4, "size": 6}
    assert found["both"] == {"epochs": 1, "rate": 2, "size": 6}, "of several, the first counts most"


def test_merged_values_know_the_lines_where_they_were_written():
    node, problems = parse(MERGED, lambda line: Origin(f"f:{line}"))
    assert problems == []
    places = (["one", "epochs"], ["one", "rate"], ["two", "size"], ["two", "rate"], ["both", "size"])
    assert [node.find(place).origin.where for place in places] == ["f:1", "f:5", "f:4", "f:7", "f:4"]


def test_a_merged_section_may_merge_another():
    assert read("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, x: 3}")["c"] == {"x": 3, "y": 2}


def test_a_quoted_merge_key_is_a_key():
    assert read("a: {'<<': 3}") == {"a": {"<<": 3}}
    assert read(dump({"a": {"<<": 3}})) == read(one_line({"a": {"<<": 3}})) == {"a": {"<<": 3}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a 3\nb: {<<: *a}\n", "takes sections"),
        ("a: &a [1]\nb: {<<: [*a]}\n", "takes sections"),
        ("b:\n  <<:\n", "takes sections"),
        ("a: &a {x: 1}\nb: {<<: *a, <<: *a}\n", "<<: [*name, *other]"),
        ("a: &a {b: {<<: *a}}\n", "contains itself"),
        ('a: "\\ud83d"\n', "half of a surrogate pair"),
        ('"a\\ud83d": 1\n', "half of a surrogate pair"),
    ],
)
def test_merges_and_texts_that_cannot_be(text, said):
    _, problems = parse(text, lambda line: Origin(f"f:{line}"))
    [problem] = problems
    assert said in str(problem)


@pytest.mark.parametrize("text", ["0o10", "1:30:00", "2020-01-01T00:00:00Z", "0b1", "Yes", "OFF", "y"])
def test_more_of_yaml_1_1_stays_text(text):
    assert read(f"key: {text}") == {"key": text}
    assert read("{on: 1, no: 2, y: 3}") == {"on": 1, "no": 2, "y": 3}


def test_octal_looking_numbers_are_decimal():
    assert read("key: 010") == {"key": 10}
