"""Dispatch by name and format, samples, row numbers and hub datasets."""

import functools

import datasets
import pytest
from pydantic import ValidationError

from finetune.data.options import DataOptions, Source, Split
from finetune.data.sources import as_dataset, as_table, read

AT = "data.train.path"
ROWS = "text,label\n" + "".join(f"text {number},{number % 3}\n" for number in range(50))


def test_missing_file(tmp_path, refused):
    (tmp_path / "news.csv").write_text(ROWS)
    with refused(AT, "there is no", "did you mean", "news.csv"):
        read(Source(path=str(tmp_path / "new.csv")), "data.train", 0)


def test_what_a_file_is(load, refused, tmp_path):
    assert load("a.CSV", ROWS).num_rows == 50
    assert load("rows.txt", ROWS, format="csv").num_rows == 50
    with refused(AT, "cannot be told from its name", "data.train.format"):
        load("rows.thing", ROWS)
    with refused(AT, "is a file, where a folder is expected"):
        load("b.csv", ROWS, format="folder")
    with refused(AT, "is a folder, where a csv file is expected"):
        read(Source(path=str(tmp_path), format="csv"), "data.train", 0)


def test_package_file_by_pattern(tmp_path, monkeypatch):
    (tmp_path / "boxed" / "data").mkdir(parents=True)
    (tmp_path / "boxed" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "boxed" / "data" / "rows-1.2.csv").write_text(ROWS)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert read(Source(path="package:boxed/data/rows-*.csv"), "data.train", 0).num_rows == 50
    assert read(Source(path="package:boxed/data/*"), "data.train", 0).num_rows == 50


def test_limit_is_a_seeded_sample_in_order_that_keeps_row_numbers(load):
    one, again, other = (load("a.csv", ROWS, seed=seed, limit=10) for seed in (1, 1, 2))
    numbers = list(one["example"])
    assert len(numbers) == 10 and numbers == sorted(set(numbers)) and numbers != list(range(10))
    assert list(one["text"]) == [f"text {number}" for number in numbers]
    assert list(again["example"]) == numbers != list(other["example"])
    assert load("a.csv", ROWS, limit=51).num_rows == 50


def test_reading_writes_nothing(load, tmp_path):
    load("a.csv", ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert load("a.csv", ROWS).cache_files == []


def test_row_number_does_not_hide_a_column(load, refused):
    with refused("data.train.columns", "row number"):
        load("a.csv", "example,label\na,x\n")
    with refused("data.train.columns", "row number"):
        load("b.csv", "text,label\na,x\n", columns={"example": "text"})
    with refused("data.train.columns", "{own_example1: example}"):  # not a name that hides another column
        load("d.csv", "text,example,own_example\na,b,c\n")
    kept = load("c.csv", "example,label\na,x\n", columns={"text": "{example}"})
    assert kept["text"] == ["a"] and kept["example"] == [0]


def test_options_that_do_not_fit_the_format():
    with pytest.raises(ValidationError, match="names is for csv, tsv and xlsx files"):
        Source(path="a.jsonl", names=["a"])
    with pytest.raises(ValidationError, match="hub datasets"):
        Source(path="a.csv", split="train")
    assert Source(path="hub:org/name", split="test").kind == "hub"


def test_part_given_twice_and_share_that_is_none():
    source = Source(path="a.csv")
    with pytest.raises(ValidationError, match=r"test and split\.test are both given"):
        DataOptions(train=source, test=source, split=Split(test=0.1))
    with pytest.raises(ValidationError, match="whole number"):
        Split(test=10.5)
    assert Split(test=10, validation=0.5, train=1).test == 10


def test_table_of_a_selection_is_the_selection(load):
    data = load("a.csv", ROWS)
    assert list(as_dataset(as_table(data.select([3, 1])))["text"]) == ["text 3", "text 1"]


# --- hub


def labelled():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    return datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)


def test_hub_name_revision_subset_and_split(monkeypatch):
    asked = []

    def load_dataset(*args, **options):
        asked.append((args, options))
        return labelled()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = read(Source(path="hub:org/name@v1", subset="small", split="test"), "data.train", 0)
    read(Source(path="hub:org/name"), "data.train", 0)
    assert asked == [
        (("org/name", "small"), {"split": "test", "revision": "v1"}),
        (("org/name", None), {"split": "train", "revision": None}),
    ]
    assert list(data["label"]) == ["good", "bad", None]
    assert list(data["example"]) == [0, 1, 2]


def test_hub_loader_on_a_folder(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text("text,label\na,x\nb,y\n")
    load_dataset = functools.partial(datasets.load_dataset, cache_dir=str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    assert list(read(Source(path="hub:./set"), "data.train", 0)["label"]) == ["x", "y"]


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("Unknown split"), RuntimeError("scripts")])
def test_hub_failure_is_one_clear_problem(monkeypatch, refused, error):
    def load_dataset(*args, **options):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with refused(AT, "'org/name' cannot be loaded", str(error), "network"):
        read(Source(path="hub:org/name"), "data.train", 0)


def test_hub_dataset_while_offline(refused):
    with refused(AT, "cannot be loaded"):
        read(Source(path="hub:org/none"), "data.train", 0)


def test_numbers_of_a_csv_file_that_is_found_by_a_pattern_are_numbers(tmp_path, monkeypatch):
    (tmp_path / "boxed").mkdir()
    (tmp_path / "boxed" / "rows.csv").write_text(ROWS)
    (tmp_path / "boxed" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(read(Source(path="package:boxed/rows*"), "data.train", 0)["label"])[:4] == [0, 1, 2, 0]
