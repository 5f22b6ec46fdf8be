"""A file of a study that was cut short is named in one line, or made again; nothing is lost but what it held."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests import tiny
from tests.end_to_end.reading import predictions, results, scores

RUN = ("run", "topics.yaml", "seeds=1", "variants=null", "strategy={type: full}", "baselines.enabled=true")
NAMED = {
    "full/seed-0/result.json": ["full/seed-0/result.json"],
    "full/seed-0/metrics.jsonl": ["full/seed-0/metrics.jsonl"],
    "full/seed-0/predictions/test.parquet": ["full/seed-0/predictions/test.parquet", "full/seed-0/result.json"],
    "baselines/commonest-label/result.json": ["baselines/commonest-label/result.json"],
    "environment.json": ["environment.json"],
    "data.json": ["data.json"],
    "speed.json": ["speed.json"],
}
"""Files that cannot be done without, and what to remove for them to be made again."""

MADE_AGAIN = ["recipe.yaml", "examples/test.parquet", "report/results.json", "report/index.html"]
"""Files that each call writes."""


@pytest.fixture(scope="module")
def whole(warm, encoder_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    tiny.write_topics(folder, encoder_folder)
    done = warm.run(*RUN, cwd=folder)
    assert done.code == 0, done.text
    return folder


@pytest.fixture
def study(whole, tmp_path) -> Path:
    """A copy of the finished study."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs" / "topics"


def assert_as(study: Path, whole: Path) -> None:
    wanted = whole / "runs" / "topics"
    assert scores(study) == scores(wanted)
    found, stored = predictions(study), predictions(wanted)
    assert found.keys() == stored.keys() and all(found[path].equals(stored[path]) for path in stored)
    assert results(study)["variants"][0]["estimates"] == results(wanted)["variants"][0]["estimates"]


@pytest.mark.parametrize(("name", "share"), [(name, number % 2 * 0.6) for number, name in enumerate(NAMED)])
def test_what_was_cut_short_is_named(study, finetune, whole, name, share):
    path = study / name
    os.truncate(path, int(share * path.stat().st_size))
    done = finetune(*RUN)
    assert done.code == 1 and "Traceback" not in done.text, done.text
    assert done.err.count("\n") == 1 and f"{name} is damaged (" in done.err, done.err
    assert "restore it from a copy, or remove it, and run the same command again" in done.err
    for each in NAMED[name]:
        (study / each).unlink()
    again = finetune(*RUN)
    assert again.code == 0, again.text
    assert_as(study, whole)


@pytest.mark.parametrize("name", MADE_AGAIN)
def test_what_each_call_writes_is_made_again(study, finetune, whole, name):
    os.truncate(study / name, 10)
    done = finetune(*RUN)
    assert done.code == 0, done.text
    assert (study / name).stat().st_size > 10
    assert_as(study, whole)


@pytest.mark.parametrize("size", [0, 60])
def test_a_study_whose_recipe_was_cut_short_is_refused(study, finetune, size):
    """By it the folder is known."""
    os.truncate(study / "resolved.yaml", size)
    for verb in (RUN, ("report", "runs/topics")):
        done = finetune(*verb)
        assert done.code in (1, 2) and "resolved.yaml" in done.text and "Traceback" not in done.text, done.text


def test_a_flipped_bit_of_predictions_is_noticed(study, finetune):
    path = study / "full/seed-0/predictions/test.parquet"
    content = bytearray(path.read_bytes())
    content[60] ^= 1  # within the first column
    path.write_bytes(content)
    done = finetune(*RUN)
    assert done.code == 1 and "test.parquet is damaged (" in done.err, done.text


def test_a_study_that_has_lost_its_environment_says_so(study, finetune):
    (study / "environment.json").unlink()
    done = finetune(*RUN)
    assert done.code == 0 and "this study has lost environment.json, with which base model" in done.text, done.text
