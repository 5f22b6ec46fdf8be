"""What runs share is loaded once, and never by runs that need something else."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from finetune import models, recipe
from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.runner import resources
from finetune.runner.resources import Resources
from finetune.tasks.classification import Classification
from tests import tiny

LOADS = [(resources, "load_splits"), (models, "load_tokenizer"), (models, "load_base")]


@pytest.fixture
def loads(monkeypatch):
    """How often each thing was loaded."""
    counts = Counter()

    def counting(name, load):
        def counted(*arguments, **keywords):
            counts[name] += 1
            return load(*arguments, **keywords)

        return counted

    for module, name in LOADS:
        monkeypatch.setattr(module, name, counting(name, getattr(module, name)))
    return counts


def variants(path, *overrides):
    return [variant.recipe for variant in recipe.load(path, overrides).variants]


def load_all(own, recipes, seed=0):
    found = [own.data(one, seed) for one in recipes]
    return found, [own.base(one.model, data.task) for one, data in zip(recipes, found, strict=True)]


def test_variants_that_differ_in_strategy_share_everything(topics, loads):
    own = Resources()
    recipes = variants(topics)
    assert len(recipes) == 2
    datas, bases = load_all(own, [*recipes, *recipes])
    assert all(one is datas[0] for one in datas) and all(one is bases[0] for one in bases)
    assert loads == {"load_splits": 1, "load_tokenizer": 1, "load_base": 1}


@pytest.fixture
def plain(topics):
    """The topics recipe, whose variants are made by tests."""
    topics.write_text(topics.read_text().partition("variants:")[0] + "strategy: {type: linear, solver: steps}\n")
    return topics


def test_another_way_to_encode_shares_tokenizer_and_weights(plain, loads):
    recipes = [variants(plain, f"task.max_length={length}")[0] for length in (8, 64)]
    datas, bases = load_all(Resources(), recipes)
    lengths = [max(example.length for example in one.train.examples) for one in datas]
    assert lengths[0] == 8 and lengths[1] > 8
    assert loads["load_tokenizer"] == loads["load_base"] == 1 and bases[0] is bases[1]


def test_another_label_column_is_another_task(plain, loads):
    rows = [(text, topic, str(number % 2)) for number, (text, topic) in enumerate(tiny.sentences(90))]
    lines = ["text,label,other", *(",".join(row) for row in rows)]
    (plain.parent / "news.csv").write_text("\n".join(lines) + "\n")
    [first], [second] = variants(plain), variants(plain, "task.label=other")
    (one, other), bases = load_all(Resources(), [first, second])
    assert one.task.labels == ("money", "space", "sport") and other.task.labels == ("0", "1")
    assert bases[0] is not bases[1]
    assert [base.model.config.num_labels for base in bases] == [3, 2]
    assert loads["load_tokenizer"] == 1


def test_each_tasks_columns_are_checked_though_another_has_read_the_data(plain):
    own = Resources()
    own.data(variants(plain)[0], 0)
    with pytest.raises(InputError) as error:
        own.data(variants(plain, "task.label=lable")[0], 0)
    assert error.value.problems[0].path == "task.label" and "did you mean 'label'" in error.value.problems[0].advice


@pytest.mark.parametrize(
    "override", ["data.split.seed=1", "data.split.test=20", "data.train.limit=60", "task.max_length=16"]
)
def test_other_data_are_loaded_for_themselves(plain, override):
    own = Resources()
    one, other = own.data(variants(plain)[0], 0), own.data(variants(plain, override)[0], 0)
    assert one is not other


def test_another_split_seed_is_another_split(plain, loads):
    own = Resources()
    [one] = variants(plain)
    first, second = own.data(one, 0), own.data(one, 1)
    texts = [[example.inputs["input_ids"].tolist() for example in found.train.examples] for found in (first, second)]
    assert texts[0] != texts[1]
    assert own.data(one, 0) is first
    assert loads == {"load_splits": 2, "load_tokenizer": 1}


def test_another_model_is_loaded_for_itself(plain, tmp_path, loads):
    deep = tiny.save_encoder(tmp_path / "deep", num_hidden_layers=3)
    recipes = [*variants(plain), *variants(plain, f"model.source={deep}")]
    _, bases = load_all(Resources(), recipes)
    assert [base.model.config.num_hidden_layers for base in bases] == [2, 3]
    assert loads["load_base"] == loads["load_tokenizer"] == 2


def test_what_is_shared_is_not_changed_by_a_run(plain):
    own = Resources()
    [one] = variants(plain)
    base = own.base(one.model, own.data(one, 0).task)
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    copy = base.copy(Streams(1))
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter += 1
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())


def test_facts_say_what_each_split_holds(plain):
    found = Resources().data(variants(plain)[0], 0)
    splits = found.facts["splits"]
    assert list(splits) == ["train", "validation", "test"]
    assert [splits[name]["examples"] for name in splits] == [48, 12, 30]
    assert splits["train"]["facts"]["labels"] == {"money": 16, "space": 16, "sport": 16}
    assert splits["test"]["facts"] == found.held_out["test"].facts
    assert splits["validation"]["facts"] == found.validation.facts
    assert found.majority == {"test": pytest.approx(1 / 3)}
    assert found.facts["duplicates_dropped"] == 0 and found.facts["leaks"]["found"] == 0


def test_the_share_of_the_commonest_label_is_that_of_the_rows_that_are_scored(plain, monkeypatch):
    encode = Classification.encode

    def without_space(self, data, at, training):
        whole = encode(self, data, at, training)
        kept = [example for example in whole.examples if training or example.reference != "space"]
        return replace(whole, examples=kept)

    monkeypatch.setattr(Classification, "encode", without_space)
    found = Resources().data(variants(plain)[0], 0)
    assert len(found.held_out["test"].examples) == 20 and found.majority == {"test": 0.5}


def test_further_held_out_tasks_stand_beside_the_test_split(plain):
    tiny.write_csv(plain.parent / "tweets.csv", [("a bank of loans", "money"), ("a moon", "space"), ("cup", "money")])
    plain.write_text(plain.read_text() + "evaluate:\n  - {name: tweets, data: {path: tweets.csv}}\n")
    found = Resources().data(variants(plain)[0], 0)
    assert list(found.held_out) == ["test", "tweets"] and found.majority["tweets"] == pytest.approx(2 / 3)
    assert len(found.held_out["tweets"].examples) == 3


def test_a_conversation_has_no_majority(chats):
    found = Resources().data(variants(chats)[0], 0)
    assert found.majority == {"test": None} and found.validation is not None
