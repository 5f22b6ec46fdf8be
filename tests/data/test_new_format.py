"""A format is one file: what one needs to be chosen, read, refused and described is derived from its class."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import finetune
from finetune.data.formats.base import FORMATS

NEW = '''
"""Reads ini files: one section a row."""

from configparser import ConfigParser

from finetune.data.formats.base import FORMATS, Format, read_text


@FORMATS.register
class Ini(Format):
    """An ini file."""

    name = "ini"
    suffixes = (".ini", ".cfg")

    @staticmethod
    def read(path, source, at):
        import pyarrow as pa

        parser = ConfigParser()
        parser.read_string(read_text(path, source, at))
        return pa.Table.from_pylist([dict(parser[name]) for name in parser.sections()])
'''

RECIPE = """
model: {source: ./model}
data: {train: {path: rows.ini}, test: {path: rows, format: ini}}
task: {type: classification}
strategy: {type: full}
"""

PROGRAM = """
from finetune import recipe
from finetune.core.errors import InputError
from finetune.data import Reading, load_splits
from finetune.data.options import Source
from finetune.data.sources import read
from finetune.recipe.reference import markdown

data = recipe.load("recipe.yaml").variants[0].recipe.data
splits = load_splits(data.model_copy(update={"leaks": "allow"}), {}, 0, Reading(["text"], lambda data, at: None))
print(splits.train["text"][:], splits.held_out["test"]["label"][:])
print([line for line in markdown().splitlines() if line.startswith("| `format`")][0])
try:
    read(Source(path="rows"), "data.train", 0)
except InputError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What a program prints that reads ini files, by a copy of the package with one more file in it."""
    folder = tmp_path_factory.mktemp("more")
    source = Path(finetune.__file__).parent
    shutil.copytree(source, folder / "finetune", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "finetune" / "data" / "formats" / "ini.py").write_text(NEW)
    rows = "".join(f"[row {number}]\ntext = some words {number}\nlabel = {number % 2}\n" for number in range(4))
    for name in ("rows.ini", "rows"):
        (folder / name).write_text(rows)
    (folder / "recipe.yaml").write_text(RECIPE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_recipe_reads_it_by_the_files_name_and_by_format(said):
    assert "['some words 0', 'some words 1', 'some words 2', 'some words 3'] ['0', '1', '0', '1']" in said


def test_the_reference_and_messages_name_it(said):
    assert "| `format` | `conll`, `csv`, `dataset`, `folder`, `ini`, `json`," in said
    assert "conll, csv, ini, json, jsonl or tsv (known endings: .conll, .csv, .ini, .cfg, .json," in said


def test_endings_are_told_apart():
    endings = [suffix for each in FORMATS.all().values() for suffix in each.suffixes]
    assert len(endings) == len(set(endings)) and all(ending == ending.lower() for ending in endings)


@pytest.mark.parametrize("name", FORMATS.all())
def test_it_is_documented_and_overrides_what_it_has_to(name):
    found = FORMATS.get(name)
    assert found.__doc__ and {"read", "blocks"} & vars(found).keys() and (found.folder or found.suffixes)
    # A folder is whose it is said to be, and advice names what it would have to hold.
    assert ("owns" in vars(found)) == bool(found.holds) and (found.holds or not found.folder)
