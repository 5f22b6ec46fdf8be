"""Large data are prepared once: mapped when they are wanted again, and prepared anew when anything has changed."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import date

import pytest
from filelock import FileLock

from finetune import recipe as recipes
from finetune.core import signals, unchanged
from finetune.core.errors import InputError, Interrupted
from finetune.data import cache, spool
from finetune.data.options import Source
from finetune.runner import resources as module
from finetune.runner.resources import Resources
from finetune.tasks.classification import Classification
from tests import tiny


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A recipe whose data count as large."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(spool, "IN_MEMORY", 1000)
    tiny.save_encoder(tmp_path / "encoder")
    tiny.write_csv(tmp_path / "rows.csv", tiny.sentences(80, seed=1))
    (tmp_path / "recipe.yaml").write_text(
        json.dumps(
            {
                "name": "study",
                "model": {"source": "./encoder", "new": ["cls"]},
                "data": {"train": {"path": "rows.csv"}, "split": {"test": 20, "validation": 10}},
                "task": {"type": "classification", "max_length": 16},
                "strategy": {"type": "full"},
            }
        )
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(*overrides):
    [variant] = recipes.load("recipe.yaml", overrides).variants
    return Resources().data(variant.recipe, 0)


def shown(data):
    """All that there is in each set."""
    return {
        name: [(e.number, e.reference, str(e.target), e.weight, e.inputs["input_ids"].tolist()) for e in found.examples]
        for name, found in data.sets.items()
    }


@pytest.fixture
def counted(monkeypatch):
    """How often the data were read, and how often a set was encoded."""
    seen = {"read": 0, "encoded": 0}
    load_splits, encode = module.load_splits, Classification.encode

    def reading(*args):
        seen["read"] += 1
        return load_splits(*args)

    def encoding(self, *args):
        seen["encoded"] += 1
        return encode(self, *args)

    monkeypatch.setattr(module, "load_splits", reading)
    monkeypatch.setattr(Classification, "encode", encoding)
    return seen


def test_it_is_prepared_once_and_is_the_same(place, counted, monkeypatch):
    first = load()
    assert counted == {"read": 1, "encoded": 3}
    again = load()
    assert counted == {"read": 1, "encoded": 3}, "nothing was read or encoded"
    monkeypatch.setenv("FINETUNE_CACHE", "")
    assert shown(again) == shown(first) == shown(load()) and counted["read"] == 2
    assert again.facts == first.facts and again.majority == first.majority
    assert [found.facts for found in again.sets.values()] == [found.facts for found in first.sets.values()]
    for name, table in first.tables.items():
        assert again.tables[name].to_dict() == table.to_dict()


def test_tokenising_changes_nothing_that_counts(place, counted, monkeypatch):
    """In this process, where the tokenizer remembers how it was last called."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    load(), load()
    assert counted == {"read": 1, "encoded": 3}


def test_small_data_are_not_kept(place, counted, monkeypatch):
    monkeypatch.setattr(spool, "IN_MEMORY", 1 << 26)
    load(), load()
    assert counted["read"] == 2 and not (place / "cache" / "data").exists()


def rows(place):
    tiny.write_csv(place / "rows.csv", tiny.sentences(80, seed=2))


def touched(place):
    os.utime(place / "rows.csv")


def template(place):
    """Other tokens for the same texts."""
    path = place / "encoder" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change, overrides, wanted",
    [
        (rows, [], {"read": 2, "encoded": 6}),
        (touched, [], {"read": 2, "encoded": 6}),
        (template, [], {"read": 1, "encoded": 6}),
        (None, ["data.split.test=10"], {"read": 2, "encoded": 6}),
        (None, ["task.max_length=8"], {"read": 2, "encoded": 6}),
        (None, ["train.learning_rate=0.5"], {"read": 1, "encoded": 3}),
        (None, ["seeds=9"], {"read": 1, "encoded": 3}),
    ],
    ids=["rows", "times", "tokenizer", "split", "length", "rate", "seeds"],
)
def test_what_has_changed_is_prepared_anew(place, counted, change, overrides, wanted):
    load()
    if change:
        change(place)
    load(*overrides)
    assert counted == wanted


def test_other_software_is_something_else(place, counted, monkeypatch):
    load()
    monkeypatch.setattr(sys, "version", "3.99")
    load()
    assert counted["read"] == 2 and unchanged.software()


def test_the_entries_that_were_used_last_are_kept(place, monkeypatch):
    monkeypatch.setattr(cache, "ENTRIES", 4)
    for length in (8, 9, 10, 11):
        load(f"task.max_length={length}")
    assert len([path for path in (place / "cache" / "data").iterdir() if path.is_dir()]) == 4


def test_an_entry_is_there_as_a_whole_or_not_at_all(place):
    key = cache.key_of([("data.train", Source(path="rows.csv"))], [])
    with pytest.raises(ZeroDivisionError):
        cache.kept(key, lambda: ({}, 1 / 0))
    assert not [path for path in (place / "cache" / "data").iterdir() if path.is_dir()]
    assert cache.kept(key, lambda: ({}, {"a": 1})) == ({}, {"a": 1}) == cache.kept(key, lambda: ({}, 1 / 0))


TOGETHER = """
import sys, time
from finetune.data import cache, spool
spool.IN_MEMORY = 1000
from finetune.data.options import Source
def make():
    print("made", flush=True)
    time.sleep(1)
    return {}, 1
cache.kept(cache.key_of([("data.train", Source(path="rows.csv"))], []), make)
"""


def test_processes_that_begin_together_do_it_once(place):
    running = [subprocess.Popen([sys.executable, "-c", TOGETHER], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [each.communicate(timeout=60)[0] for each in running]
    assert "".join(said) == "made\n" and all(each.returncode == 0 for each in running)


def key(place, path):
    return cache.key_of([("data.train", Source(path=path))], [])


def test_a_pattern_counts_with_all_its_files(place):
    for number in range(2):
        tiny.write_csv(place / f"part-{number}.csv", tiny.sentences(80))
    two = key(place, "part-*.csv")
    tiny.write_csv(place / "part-2.csv", tiny.sentences(80))
    three = key(place, "part-*.csv")
    tiny.write_csv(place / "part-2.csv", tiny.sentences(81))
    assert two and len({two, three, key(place, "part-*.csv")}) == 3


def test_a_database_counts_whichever_way_it_is_named(place):
    with closing(sqlite3.connect(place / "rows.db")) as database:
        database.execute("CREATE TABLE news (text)")
    assert key(place, "rows.db#news") == key(place, "sqlite:rows.db#news") == key(place, "rows.db") is not None


def test_files_that_are_not_there_are_told_together(place):
    with pytest.raises(InputError) as error:
        load("data.train.path=none.csv", "data.split.test=0", "data.test.path=nowhere.csv")
    assert [problem.path for problem in error.value.problems] == ["data.train.path", "data.test.path"]


def test_another_model_with_the_same_tokenizer_is_shown_something_else(place, counted):
    """Whether words are hidden or continued is told by the model's configuration."""
    tiny.save_decoder(place / "decoder", chat=False)
    for path in (place / "encoder").glob("token*"):
        shutil.copy(path, place / "decoder" / path.name)
    language = ["task={type: language, max_length: 16, metrics: [loss]}"]
    masked, causal = load(*language), load(*language, "model={source: ./decoder}")
    assert counted["read"] == 1 and masked.task.masked and not causal.task.masked
    assert shown(masked)["test"] != shown(causal)["test"]


@pytest.mark.parametrize("dated", [False, True])
def test_a_day_counts_where_the_model_is_shown_it(place, counted, dated):
    tokenizer = place / "encoder" / "tokenizer_config.json"
    content = json.loads(tokenizer.read_text())
    content["chat_template"] = "{{ strftime_now('%d') }}" if dated else "{{ messages }}"
    tokenizer.write_text(json.dumps(content))
    [variant] = recipes.load("recipe.yaml").variants
    for day in (1, 2):
        Resources(date(2026, 1, day)).data(variant.recipe, 0)
    assert counted == {"read": 1, "encoded": 6 if dated else 3}


def test_where_a_process_stands_among_others_is_not_its_data(place, counted, monkeypatch):
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", rank)
        load()
    assert counted == {"read": 1, "encoded": 3}


def test_a_broken_entry_is_made_again(place, counted):
    first = load()
    for path in (place / "cache" / "data").glob("*/0.arrow"):
        whole = path.read_bytes()
        path.unlink()  # what is mapped of it stays
        path.write_bytes(whole[:20])
    assert shown(load()) == shown(first) == shown(load())
    assert counted == {"read": 2, "encoded": 6}


def test_without_a_folder_to_write_to_nothing_is_kept_and_nothing_is_lost(place, counted, monkeypatch):
    (place / "file").touch()
    monkeypatch.setenv("FINETUNE_CACHE", str(place / "file" / "cache"))
    load(), load()
    assert counted["read"] == 2


def test_waiting_for_another_process_can_be_stopped(place, monkeypatch):
    found = key(place, "rows.csv")
    lock = place / "cache" / "data" / f"{found}.lock"
    lock.parent.mkdir(parents=True)
    monkeypatch.setattr(signals, "stop_requested", lambda: True)
    with FileLock(lock), pytest.raises(Interrupted, match="waiting for another process"):
        cache.kept(found, lambda: ({}, 1))
