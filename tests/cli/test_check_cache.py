"""What a remembered check depends on: each part, changed alone, must make it another check."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sys
import time
from pathlib import Path

import pytest

from finetune import recipe
from finetune.advice.advising import Advice
from finetune.cli import check_cache
from finetune.cli.check_cache import Checked
from finetune.core import unchanged

RECIPE = """\
seeds: 2
model: {source: ./model, tokenizer: ./tokenizer}
data:
  train: {path: news.csv}
evaluate:
  - {name: folder, data: {path: corpus}}
task: {type: classification}
variants:
  lora: {strategy: {type: adapter, rank: 8}}
  linear: {strategy: {type: linear}}
"""

FILES = {
    "news.csv": "text,label\na,x\nb,y\n",
    "corpus/x/1.txt": "one",
    "corpus/y/2.txt": "two",
    "model/config.json": '{"model_type": "bert"}',
    "model/model.safetensors": "weights",
    "model/parts/more.json": "{}",
    "tokenizer/tokenizer.json": '{"a": 1}',
    "small.gguf": "a model and its tokenizer",
    "tokenizer_config.json": '{"b": 1}',
}


def checked(*lines):
    """What a check has found."""
    return Checked([*lines], [Advice("few-seeds", ("full",), "2 seeds", "they scatter", "somebody 2020", "seeds: 5")])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a recipe and all it reads, and an empty memory beside it."""
    folder = tmp_path / "study"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "memory"))
    return folder


def key(place, *overrides):
    return check_cache.key_of(recipe.load(place / "recipe.yaml", overrides))


def swapped(path):
    """Other content of the same size, with the times set back."""
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_the_same_check_has_the_same_key(place):
    first = key(place)
    assert first and len(first) == 64
    (place / "recipe.yaml").write_text("# a comment\n" + RECIPE)
    shutil.copytree(place / "corpus" / "x", place / "corpus" / "x" / "__pycache__")
    (place / "corpus" / ".hidden").write_text("no reader looks here")
    os.utime(place / "news.csv", (0, 0))
    assert key(place) == first


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"small.gguf", "tokenizer_config.json"}))
def test_a_file_that_is_read_has_other_content(place, name):
    first = key(place)
    swapped(place / name)
    assert key(place) != first


@pytest.mark.parametrize("path", ["rows.db#news", "sqlite:rows.db#news", "rows.db", "book.xlsx#Sheet 2"])
def test_a_file_with_several_tables_has_other_content(place, path):
    for name in ("rows.db", "book.xlsx"):
        (place / name).write_text(name)
    override = f"data.train.path={path.replace('rows', str(place / 'rows')).replace('book', str(place / 'book'))}"
    first = key(place, override)
    assert first and first == key(place, override) != key(place, f"{override}s")
    swapped(place / ("rows.db" if "rows" in path else "book.xlsx"))
    assert key(place, override) != first


def test_a_pattern_finds_other_files_or_other_content(place):
    for name in "ab":
        (place / f"part-{name}.csv").write_text("text,label\n")
    override = f"data.train.path={place}/part-*.csv"
    first = key(place, override)
    assert first and first == key(place, override)
    swapped(place / "part-b.csv")
    second = key(place, override)
    (place / "part-c.csv").write_text("text,label\n")
    assert len({first, second, key(place, override)}) == 3
    for name in "abc":
        (place / f"part-{name}.csv").unlink()
    assert key(place, override) is None


@pytest.mark.parametrize("name", ["small.gguf", "tokenizer_config.json"])
def test_a_gguf_file_or_what_lies_beside_it_has_other_content(place, name):
    override = f"model.source={place / 'small.gguf'}"
    first = key(place, override)
    assert first == key(place, override)
    swapped(place / name)
    assert key(place, override) != first


@pytest.mark.parametrize("name", ["corpus/x/1.txt", "model/config.json", "model/model.safetensors"])
def test_a_file_is_taken_away_or_renamed(place, name):
    first = key(place)
    path = place / name
    path.rename(path.with_name("other" + path.suffix))
    renamed = key(place)
    path.with_name("other" + path.suffix).unlink()
    assert len({first, renamed, key(place)}) == 3


@pytest.mark.parametrize("name", ["corpus/x/3.txt", "corpus/z/1.txt", "model/vocab.txt", "tokenizer/added_tokens.json"])
def test_a_file_is_added(place, name):
    first = key(place)
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text("")
    assert key(place) != first


def test_files_that_are_too_many_to_read_count_by_size_and_times(place, monkeypatch):
    monkeypatch.setattr(unchanged, "READ", len(FILES["news.csv"]) - 1)
    first = key(place)
    assert key(place) == first
    swapped(place / "news.csv")  # all but the time of the last change is as it was
    second = key(place)
    os.utime(place / "news.csv", (0, 0))
    assert len({first, second, key(place)}) == 3


@pytest.mark.parametrize(
    "override",
    [
        "seeds=3",
        "seeds=[1,2]",
        "vary=[split]",
        "train.learning_rate=1e-3",
        "train.save_model=false",
        "variants.lora.strategy.rank=4",
        "data.train.encoding=latin-1",
        "data.train.encoding_errors=replace",
        "data.train.limit=1",
        "data.split.seed=1",
        "task.max_length=32",
        "model.device=cpu",
        "name=other",
    ],
)
def test_the_recipe_says_something_else(place, override):
    assert key(place, override) != key(place)


def test_the_variants_have_another_order(place):
    first = key(place)
    *shared, lora, linear = RECIPE.splitlines()
    (place / "recipe.yaml").write_text("\n".join([*shared, linear, lora]))
    assert key(place) != first


def test_a_variant_has_another_name(place):
    first = key(place)
    (place / "recipe.yaml").write_text(RECIPE.replace("  lora:", "  low:"))
    assert key(place) != first


def test_the_same_recipe_lies_elsewhere(place):
    shutil.copytree(place, place.with_name("copy"))
    assert key(place.with_name("copy")) != key(place)


def test_a_package_is_installed_upgraded_or_installed_again(place, tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    keys = {key(place)}
    for version, when in (("1.0", 1), ("1.1", 1), ("1.1", 2)):
        shutil.rmtree(site)
        folder = site / f"parcel-{version}.dist-info"
        folder.mkdir(parents=True)
        os.utime(folder, (when, when))
        keys.add(key(place))
    assert len(keys) == 4


def test_python_is_another_one(place, monkeypatch):
    first = key(place)
    monkeypatch.setattr(sys, "version", "3.99.0")
    assert key(place) != first


@pytest.mark.parametrize("name", ["study/preflight.py", "tasks/classification.py"])
def test_our_own_source_is_another_one(place, tmp_path, monkeypatch, name):
    source = tmp_path / "installed"
    shutil.copytree(Path(unchanged.__file__).parents[1], source, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(unchanged, "__file__", str(source / "core" / "unchanged.py"))
    first = key(place)
    swapped(source / name)
    assert key(place) != first


def test_what_is_written_has_another_form(place, monkeypatch):
    first = key(place)
    monkeypatch.setattr(check_cache, "FORMAT", check_cache.FORMAT + 1)
    assert key(place) != first


@pytest.mark.parametrize(
    "override",
    [
        "model.source=org/name",
        "model.tokenizer=org/name",
        "data.train.path=hub:org/name",
        "evaluate.0.data.path=hub:org/name",
        "task.metrics=[hub:bleu]",
        "model.trust_remote_code=true",
        "model.device=cuda",
        "model.device=cuda:0",
        "data.train.path=gone.csv",
        "model.source=./gone",
    ],
)
def test_what_cannot_be_told_from_files_is_not_remembered(place, override):
    assert key(place, override) is None


def test_a_linked_folder_or_a_pipe_is_not_remembered(place, tmp_path):
    (tmp_path / "outside").mkdir()
    (place / "corpus" / "z").symlink_to(tmp_path / "outside")
    assert key(place) is None
    (place / "corpus" / "z").unlink()
    assert key(place)
    os.mkfifo(place / "corpus" / "x" / "pipe")
    assert key(place) is None


def test_what_was_found_comes_back(place):
    name = key(place)
    assert check_cache.recall(name) is None
    check_cache.remember(name, checked("train: 2 examples", "ünï×"))
    found = check_cache.recall(name)
    assert found.lines == ["train: 2 examples", "ünï×"] and found.advice == checked().advice
    assert abs(found.checked.timestamp() - time.time()) < 60
    assert check_cache.recall(key(place, "seeds=3")) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"checked": "2026-01-01T00:00:00+00:00"}',
        b'{"checked": "yesterday", "lines": [], "advice": []}',
        b'{"checked": "2026-01-01T00:00:00+00:00", "lines": [], "advice": [{"rule": "x"}]}',
        b'{"checked": 3, "lines": [], "advice": []}',
        b'{"checked": "2026-01-01T00:00:00+00:00", "lines": "text", "advice": []}',
        b'{"checked": "2026-01-01T00:00:00+00:00", "lines": [1], "advice": []}',
    ],
)
def test_a_broken_entry_is_none_and_is_written_over(place, content):
    name = key(place)
    entry = check_cache.folder() / f"{name}.json"
    entry.parent.mkdir(parents=True)
    entry.write_bytes(content)
    assert check_cache.recall(name) is None
    check_cache.remember(name, checked("line"))
    assert check_cache.recall(name).lines == ["line"]


def test_a_folder_that_cannot_be_written_is_no_memory(place, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "file"))
    name = key(place)
    assert name
    check_cache.remember(name, checked("line"))
    assert check_cache.recall(name) is None


def test_old_entries_and_too_many_go(place, monkeypatch):
    folder, now = check_cache.folder(), time.time()
    folder.mkdir(parents=True)
    ages = {"day": 1, "month": 30, "late": 89, "old": 91}
    for name, days in ages.items():
        (folder / f"{name}.json").write_text(json.dumps({}))
        os.utime(folder / f"{name}.json", (now - days * 86400,) * 2)
    (folder / "notes.txt").write_text("not ours")

    def left():
        return {path.stem for path in folder.iterdir()}

    check_cache.remember("new", checked())
    assert left() == {"new", "day", "month", "late", "notes"}
    monkeypatch.setattr(check_cache, "ENTRIES", 3)
    check_cache.remember("newer", checked())
    assert left() == {"newer", "new", "day", "notes"}


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/person")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    assert check_cache.folder() == tmp_path / "checks"
    monkeypatch.setenv("FINETUNE_CACHE", "~/mine")
    assert check_cache.folder() == Path("/home/person/mine/checks")
    monkeypatch.setenv("FINETUNE_CACHE", "")
    assert check_cache.folder() is None
    monkeypatch.delenv("FINETUNE_CACHE")
    assert check_cache.folder() == Path("/elsewhere/finetune/checks")
    for unset in ("", "relative"):  # the standard says that a relative one is to be ignored
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert check_cache.folder() == Path("/home/person/.cache/finetune/checks")


def test_without_a_home_folder_nothing_is_remembered(monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("FINETUNE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert check_cache.folder() is None


def test_nothing_is_remembered_where_that_is_switched_off(place, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", "")
    assert key(place) is None
    check_cache.remember("name", checked("line"))
    assert check_cache.recall("name") is None
