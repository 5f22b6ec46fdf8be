"""Recipes that ask much of whoever reads them are refused in a line, and none of them does anything."""

import pytest

from finetune.core.errors import InputError
from finetune.launch.cluster import read_cluster
from finetune.recipe import load
from finetune.recipe.files import LONGEST
from finetune.recipe.yaml_text import DEEPEST, MOST

COMPLETE = """\
model: {source: org/name}
data: {train: {path: news.csv}, split: {test: 0.3}}
task: {type: classification}
strategy: {type: full}
"""
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def refused(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as found:
        load(path)
    return found.value.problems


@pytest.mark.parametrize(
    "text",
    [
        COMPLETE + "seeds: " + "[" * 5000,
        COMPLETE + "seeds: " + "[" * 900 + "]" * 900,
        COMPLETE + "seeds: " + "{a: " * 900 + "1" + "}" * 900,
        "- " * 900 + "x",
    ],
)
def test_what_lies_too_deep_is_named_with_its_line(tmp_path, text):
    problem, *_ = refused(tmp_path, text)
    assert f"more than {DEEPEST} deep" in problem.found
    assert problem.where.endswith(f"recipe.yaml:{len(text.splitlines())}")


def test_what_a_person_would_write_is_not_too_deep(tmp_path):
    nested = "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)
    assert all("deep" not in problem.found for problem in refused(tmp_path, COMPLETE + f"seeds: {nested}"))


def test_aliases_of_aliases_are_not_written_out(tmp_path):
    problem, *_ = refused(tmp_path, LAUGHS + COMPLETE)
    assert f"more than {MOST:,} values" in problem.found and "recipe.yaml" in problem.where
    (tmp_path / "cluster.yaml").write_text(LAUGHS)
    with pytest.raises(InputError, match="with its aliases written out"):
        read_cluster(tmp_path / "cluster.yaml")


@pytest.mark.parametrize(
    "tag", ["python/object/apply:os.system ['touch escaped']", "python/name:os.system", "python/module:os", "set {a}"]
)
@pytest.mark.parametrize("of", ["recipe", "cluster", "override"])
def test_no_tag_makes_an_object(tmp_path, monkeypatch, tag, of):
    monkeypatch.chdir(tmp_path)
    line = f"seeds: !!{tag}\n"
    with pytest.raises(InputError, match=r"the YAML tag .* is not allowed here"):
        if of == "cluster":
            (tmp_path / "cluster.yaml").write_text(line)
            read_cluster(tmp_path / "cluster.yaml")
        elif of == "override":
            (tmp_path / "recipe.yaml").write_text(COMPLETE)
            load(tmp_path / "recipe.yaml", [f"seeds={line.partition(': ')[2]}"])
        else:
            load(COMPLETE + line)
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("seeds: " + "9" * 5000, "must be a whole number"),
        ("seeds: 1e400", "too large"),
        ("seeds: .inf", "must be a whole number"),
        ("seeds: !!int " + "9" * 5000, "does not fit its YAML tag"),
        ("seeds: 1\nseeds: 2", "written twice"),
        ("name: ../up", "begin with a letter"),
        ("name: /tmp/up", "begin with a letter"),
        ("name: .", "begin with a letter"),
        ('name: "a\\nb"', "begin with a letter"),
        ('name: "a\\0b"', "begin with a letter"),
        ("name: x", None),
        ("variants: {../up: {}}", "cannot be a variant's name"),
        ("variants: {..: {}}", "cannot be a variant's name"),
        ('variants: {"a\\nb": {}}', "cannot be a variant's name"),
        ("variants: {report: {}}", "its own files"),
        ("variants: {A: {}, a: {}}", "upper and lower case only"),
        ("evaluate: [{name: ../up, data: {path: x.csv}}]", "begin with a letter"),
        ("evaluate: [{name: a/b, data: {path: x.csv}}]", "begin with a letter"),
        ("stages: [{name: ../up, task: {type: classification}}]", "begin with a letter"),
        ("strategy: {type: preference, method: {}}", "strategy"),
        ("strategy: {type: preference, method: [dpo]}", "strategy"),
        ("name: " + "n" * 300, "at most"),
        ("variants: {" + "v" * 300 + ": {}}", "at most"),
    ],
)
def test_odd_values_and_names_are_refused(tmp_path, line, found):
    key = line.partition(":")[0]
    text = "".join(each + "\n" for each in COMPLETE.splitlines() if not each.startswith(key)) + line
    if found is None:
        return load(text)
    assert any(found in f"{each.path}: {each.found} {each.advice}" for each in refused(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"name: \xff", "not UTF-8"),
        (COMPLETE.encode("utf-16"), "not UTF-8"),
        (COMPLETE.encode("utf-16-le"), "NUL"),
        (b"name: a\0b", "NUL"),
        (b"name: a\x1bb", "control character"),
        (b"#" * (LONGEST + 1), "more than"),
        (b"", "empty"),
    ],
)
def test_bytes_that_are_no_recipe(tmp_path, content, found):
    assert found in refused(tmp_path, content)[0].found


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(b"\xef\xbb\xbf" + COMPLETE.encode())
    assert load(tmp_path / "recipe.yaml").name == "recipe"


def test_a_device_without_an_end_is_not_read_to_it(tmp_path):
    assert "has more than" in refused(tmp_path, "extends: /dev/zero\n")[0].found
