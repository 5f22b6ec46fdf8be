"""New columns from old ones."""

import pytest

from finetune.core.errors import InputError

CSV = "title,body,stars,group\nBig news,Long story,4,g1\nSmall,,,g2\n"


def test_rename_keeps_the_old_column(load):
    data = load("a.csv", CSV, columns={"text": "body"})
    assert list(data["text"]) == list(data["body"]) == ["Long story", ""]


def test_template_with_format_and_doubled_braces(load):
    data = load("a.csv", CSV, columns={"prompt": "{{{title}}}\n{body:.4}|{stars}|{title:>9}"})
    assert data["prompt"][0] == "{Big news}\nLong|4| Big news"


def test_template_is_null_where_a_value_is_missing(load):
    assert load("a.csv", CSV, columns={"prompt": "{stars} stars"})["prompt"] == ["4 stars", None]
    assert load("a.jsonl", '{"a": 1.5}\n{"a": NaN}\n', columns={"b": "{a}"})["b"] == ["1.5", None]


def test_new_column_takes_the_place_of_one_with_its_name(load):
    data = load("a.csv", CSV, columns={"title": "{title}!", "copy": "title"})
    assert data["title"][0] == "Big news!" and data["copy"][0] == "Big news"
    assert data.column_names == ["title", "body", "stars", "group", "copy", "example"]


def test_column_whose_name_has_braces_is_a_column(load):
    assert load("a.csv", "{x},y\n1,2\n", columns={"z": "{x}"})["z"] == [1]


@pytest.mark.parametrize(
    "template, text",
    [
        ("boddy", "did you mean 'body'"),
        ("{boddy}", "did you mean 'body'"),
        ("{}", "no column ''"),
        ("{0}", "no column '0'"),
        ("{title.__class__}", "no column 'title.__class__'"),
        ("{title[0]}", "no column 'title[0]'"),
        ("{title!r}", "more than a format"),
        ("{title:{stars}}", "more than a format"),
        ("{title:d}", "not a format for text"),
        ("{title", "not well formed"),
        ("title}", "not well formed"),
    ],
)
def test_refused_templates(load, refused, template, text):
    with refused("data.train.columns.new", text):
        load("a.csv", CSV, columns={"new": template})


def test_lists_do_not_fit_a_template(load, refused):
    with refused("data.train.columns.new", "lists or objects"):
        load("a.jsonl", '{"a": [1]}\n', columns={"new": "{a}!"})


def test_all_wrong_columns_are_reported_together(load):
    with pytest.raises(InputError) as error:
        load("a.csv", CSV, columns={"one": "nope", "two": "title", "three": "{nope}"})
    assert [problem.path for problem in error.value.problems] == ["data.train.columns.one", "data.train.columns.three"]
