"""A recipe given as a mapping or as text, from Python: the same recipe, and the same errors, by path."""

from pathlib import Path

import numpy as np
import pytest

from finetune.core.errors import InputError
from finetune.recipe import load

RECIPE = {
    "name": "topics",
    "seeds": range(3),
    "model": {"source": Path("models") / "tiny.gguf"},
    "data": {"train": {"path": "news.csv"}, "split": {"test": np.float64(0.25)}},
    "task": {"type": "classification", "text": "body", "label": "topic"},
    "strategy": {"type": "full"},
    "train": {"epochs": 2, "betas": (0.9, 0.95)},
    "variants": {"slow": {"train": {"learning_rate": 1e-6}}, "yes": {}},
}


def test_a_mapping_is_the_recipe_that_its_text_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = load(RECIPE, ["train.batch_size=4"])
    Path("topics.yaml").write_text(given.text, encoding="utf-8")
    for other in (load("topics.yaml", ["train.batch_size=4"]), load(given.text, ["train.batch_size=4"])):
        assert other.digest == given.digest and other.seeds == given.seeds == [0, 1, 2]
        assert [variant.digest for variant in other.variants] == [variant.digest for variant in given.variants]
    first = given.variants[0].recipe
    assert first.model.source == str(tmp_path / "models" / "tiny.gguf"), "paths start from the working directory"
    assert first.train.betas == (0.9, 0.95) and first.data.split.test == 0.25
    assert [variant.name for variant in given.variants] == ["slow", "yes"]


def test_every_mistake_is_told_by_its_path():
    wrong = {**RECIPE, "train": {"epoch": 2, "batch_size": "many"}, "tusk": {}, "variants": {"a b": {}}}
    with pytest.raises(InputError) as caught:
        load(wrong)
    told = {(problem.path, problem.where) for problem in caught.value.problems}
    assert {("train.epoch", ""), ("train.batch_size", ""), ("tusk", ""), ("variants.a b", "")} <= told
    assert "there is no key 'epoch' in train" in str(caught.value) and "did you mean 'epochs'?" in str(caught.value)


def test_values_that_no_recipe_can_hold_are_refused_together():
    wrong = {**RECIPE, "train": {"epochs": {2}}, "vary": [b"init"]}
    with pytest.raises(InputError) as caught:
        load(wrong)
    assert [problem.path for problem in caught.value.problems] == ["train.epochs", "vary.0"]
    assert "train.epochs: is a set, and a recipe holds texts, numbers" in str(caught.value)


def test_text_is_told_by_its_lines():
    with pytest.raises(InputError, match=r"recipe:2: train\.epoch"):
        load("name: a\ntrain: {epoch: 1}\n")


def test_a_mapping_extends_files_and_is_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(load(RECIPE).text, encoding="utf-8")
    given = load({"extends": "base.yaml", "name": "more", "train": {"epochs": 5}})
    assert given.name == "more" and {variant.recipe.train.epochs for variant in given.variants} == {5.0}
    assert {variant.recipe.train.epochs for variant in given.again(["train.epochs=1"]).variants} == {1.0}


def test_without_a_name_it_is_called_recipe():
    assert load({key: value for key, value in RECIPE.items() if key != "name"}).name == "recipe"


@pytest.mark.parametrize("empty", [{}, "\n"])
def test_an_empty_one_says_what_to_write(empty):
    with pytest.raises(InputError, match="model"):
        load(empty)
