"""All data of a study: read, checked, cleaned, divided, with their facts."""

import subprocess
import sys

import pytest

from finetune.core.errors import InputError
from finetune.data import Reading, load_splits
from finetune.data.columns import require_labels, require_text
from finetune.data.options import DataOptions, Source, Split


def check(dataset, at):
    require_text(dataset, "text", at, "task.text")
    require_labels(dataset, "label", at, "task.label")


@pytest.fixture
def files(tmp_path):
    def write(**texts):
        paths = {}
        for name, rows in texts.items():
            paths[name] = str(tmp_path / f"{name}.csv")
            body = "".join(f"{text},{'xyz'[number % 3]}\n" for number, text in enumerate(rows))
            (tmp_path / f"{name}.csv").write_text("text,label\n" + body)
        return paths

    return write


def numbered(word, count):
    return [f"{word} {number}" for number in range(count)]


def test_one_file_divided(files):
    path = files(news=[*numbered("news", 60), "NEWS  0", "news 1"])["news"]
    options = DataOptions(train=Source(path=path), split=Split(test=20, validation=10, train=12, stratify="label"))
    splits = load_splits(options, {}, 3, Reading(["text"], check))
    assert list(splits.held_out) == ["test"]
    for data, size in ((splits.train, 12), (splits.validation, 10), (splits.held_out["test"], 20)):
        assert list(data["example"]) == list(range(size))
    facts = splits.facts
    assert list(facts["splits"]) == ["train", "validation", "test"]
    assert {part["source"] for part in facts["splits"].values()} == {path}
    assert [part["examples"] for part in facts["splits"].values()] == [12, 10, 20]
    assert len({part["fingerprint"] for part in facts["splits"].values()}) == 3
    assert facts["duplicates_dropped"] == 2 and facts["pool"] == 60
    leaks = {"checked": 30, "found": 0, "action": "refuse", "dropped": 0, "validation_held_out": 0}
    assert facts["leaks"] == leaks


def test_files_of_their_own_and_named_sets(files):
    paths = files(train=numbered("a", 9), dev=numbered("b", 3), test=numbered("c", 4), tweets=["b 1", "d 2"])
    options = DataOptions(
        train=Source(path=paths["train"]), validation=Source(path=paths["dev"]), test=Source(path=paths["test"])
    )
    splits = load_splits(options, {"tweets": Source(path=paths["tweets"])}, 0, Reading(["text"], check))
    assert list(splits.train["text"]) == numbered("a", 9)
    assert list(splits.validation["text"]) == numbered("b", 3)
    assert list(splits.held_out) == ["test", "tweets"]
    assert list(splits.held_out["tweets"]["text"]) == ["b 1", "d 2"]
    assert list(splits.facts["splits"]) == ["train", "validation", "test", "tweets"]
    assert splits.facts["leaks"]["validation_held_out"] == 1


def test_the_pool_is_what_training_examples_are_drawn_from(files):
    """Those that `limit` leaves in the file, as far as is known, and not those that are dropped because they leak."""
    paths = files(train=numbered("a", 90), test=["a 1", "a 2", *numbered("c", 4)])
    files_of = {"test": Source(path=paths["test"]), "leaks": "drop"}
    every = DataOptions(train=Source(path=paths["train"]), split=Split(train=30), **files_of)
    facts = load_splits(every, {}, 0, Reading(["text"], check)).facts
    assert facts["pool"] == 90 - facts["leaks"]["dropped"]
    limited = DataOptions(train=Source(path=paths["train"], limit=20), **files_of)
    facts = [load_splits(limited, {}, seed, Reading(["text"], check)).facts for seed in range(5)]
    assert all(70 <= found["pool"] + found["leaks"]["dropped"] <= 90 for found in facts)
    whole = DataOptions(train=Source(path=paths["train"]), **files_of)
    facts = load_splits(whole, {}, 0, Reading(["text"], check)).facts
    assert facts["leaks"]["dropped"] == 2 and facts["pool"] == facts["splits"]["train"]["examples"] == 88


def test_without_validation_or_test(files):
    paths = files(train=numbered("a", 9), tweets=numbered("b", 2))
    splits = load_splits(
        DataOptions(train=Source(path=paths["train"])),
        {"tweets": Source(path=paths["tweets"])},
        0,
        Reading(["text"], check),
    )
    assert splits.validation is None and list(splits.held_out) == ["tweets"]


def test_split_from_the_file_stands_before_named_sets(files):
    paths = files(train=numbered("a", 9), tweets=numbered("b", 2))
    options = DataOptions(train=Source(path=paths["train"]), split=Split(test=3))
    splits = load_splits(options, {"tweets": Source(path=paths["tweets"])}, 0, Reading(["text"], check))
    assert list(splits.held_out) == ["test", "tweets"]


def test_problems_of_all_sources_are_reported_together(files, tmp_path):
    paths = files(train=["1", "2"], test=["", ""])
    options = DataOptions(train=Source(path=paths["train"]), test=Source(path=paths["test"]))
    with pytest.raises(InputError) as error:
        load_splits(options, {"tweets": Source(path=str(tmp_path / "no.csv"))}, 0, Reading(["text"], check))
    assert [problem.path for problem in error.value.problems] == ["task.text", "task.text", "evaluate.tweets.data.path"]
    assert "data.train" in error.value.problems[0].found and "data.test" in error.value.problems[1].found


def test_leak_from_a_named_set(files, refused):
    paths = files(train=numbered("a", 9), tweets=["new", "A  3"])
    held_out = {"tweets": Source(path=paths["tweets"])}
    with refused("evaluate.tweets.data", "row 2, which is row 4 of data.train: 'A 3'"):
        load_splits(DataOptions(train=Source(path=paths["train"])), held_out, 0, Reading(["text"], check))
    dropped = DataOptions(train=Source(path=paths["train"]), leaks="drop")
    splits = load_splits(dropped, held_out, 0, Reading(["text"], check))
    assert splits.train.num_rows == 8 and "a 3" not in splits.train["text"]
    assert list(splits.train["example"]) == list(range(8))
    assert splits.facts["splits"]["train"]["examples"] == 8


def test_row_numbers_in_a_leak_are_those_of_the_file(files, refused):
    paths = files(train=numbered("a", 40), test=["a 7"])
    options = DataOptions(train=Source(path=paths["train"], limit=39), test=Source(path=paths["test"]))
    with refused("data.test", "which is row 8 of data.train"):
        load_splits(options, {}, 0, Reading(["text"], check))


def test_validation_is_held_out_too(files, refused):
    paths = files(train=numbered("a", 9), dev=["a 1"])
    options = DataOptions(train=Source(path=paths["train"]), validation=Source(path=paths["dev"]))
    with refused("data.validation", "1 of 1 held-out"):
        load_splits(options, {}, 0, Reading(["text"], check))


def test_kept_duplicates_are_caught_when_they_stand_on_both_sides(files, refused):
    paths = files(train=["same"] * 30)
    options = DataOptions(train=Source(path=paths["train"]), split=Split(test=10), duplicates="keep")
    with refused("data.split.test", "10 of 10 held-out", "data.duplicates"):
        load_splits(options, {}, 0, Reading(["text"], check))


def test_names_that_are_taken(files, refused):
    paths = files(train=numbered("a", 9), more=numbered("b", 9))
    more = Source(path=paths["more"])
    plain = DataOptions(train=Source(path=paths["train"]))
    with refused("evaluate.validation.name", "name of a part"):
        load_splits(plain, {"validation": more}, 0, Reading(["text"], check))
    with refused("evaluate.test.name", "name of a part"):
        load_splits(plain.model_copy(update={"split": Split(test=2)}), {"test": more}, 0, Reading(["text"], check))
    assert list(load_splits(plain, {"test": more}, 0, Reading(["text"], check)).held_out) == ["test"]


def test_importing_the_package_is_light():
    code = (
        "import sys, finetune.data; print([m for m in ('numpy', 'pyarrow', 'datasets', 'torch') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
