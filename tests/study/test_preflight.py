"""The dry run before a study."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers as tf

from finetune import models, recipe
from finetune.core.errors import InputError
from finetune.runner.resources import Resources
from finetune.study.preflight import located, preflight, split_seed
from tests import tiny


def load(path, *overrides):
    return recipe.load(path, overrides)


def test_it_says_what_would_be_trained_on_what(topics):
    lines = preflight(load(topics)).lines()
    assert [line.partition(":")[0] for line in lines] == ["train", "validation", "test", "linear", "full", "baselines"]
    assert lines[0].startswith("train: 48 examples, ") and lines[0].endswith("tokens on average, 0 cut")
    assert lines[3] == "linear: 99 of 35,267 parameters learn (0.28%)"
    assert lines[4] == "full: 35,267 of 35,267 parameters learn (100.00%)"


def test_it_loads_no_weights(topics, monkeypatch):
    monkeypatch.setattr(models, "load_base", lambda *_, **__: pytest.fail("weights were loaded"))
    model = models.skeleton(load(topics).variants[0].recipe.model, "AutoModelForSequenceClassification")
    assert {parameter.device for parameter in model.parameters()} == {torch.device("meta")}
    preflight(load(topics))


def test_it_counts_what_the_run_will_count(topics):
    text = (
        topics.read_text()
        + "  lora: {strategy: {type: adapter, rank: 2}}\n  top: {strategy: {type: partial, last: 1}}\n"
    )
    topics.write_text(text)
    resolved, resources = load(topics), Resources()
    found = preflight(resolved, resources)
    from finetune.runner.build import count_parameters, prepare

    for variant in resolved.variants:
        data = found.data[variant.name]
        base = resources.base(variant.recipe.model, data.task)
        if variant.name == "lora":
            strategy = variant.recipe.strategy
            model = prepare(base.model, data.task, strategy, [], "adamw", base.new).model
            assert count_parameters(model) == found.parameters[variant.name]
    assert found.parameters["linear"]["trainable"] < found.parameters["lora"]["trainable"]
    assert found.parameters["lora"]["trainable"] < found.parameters["top"]["trainable"]


def test_the_problems_of_all_variants_come_together_each_once(topics):
    topics.write_text(
        topics.read_text()
        .replace("type: linear, solver: steps", "type: partial, last: 7")
        .replace("type: full", "type: partial, last: 8")
        + "  more: {strategy: {type: partial, last: 8}}\n"
    )
    with pytest.raises(InputError) as caught:
        preflight(load(topics))
    problems = caught.value.problems
    assert [problem.found for problem in problems] == [
        "is 7, but this model has 2 blocks",
        "is 8, but this model has 2 blocks",
        "is 8, but this model has 2 blocks",
    ]
    assert [problem.where.rpartition(":")[2] for problem in problems] == ["11", "12", "13"]


def test_a_problem_of_all_variants_is_one(topics):
    with pytest.raises(InputError) as caught:
        preflight(load(topics, "data.train.path=gone.csv"))
    assert len(caught.value.problems) == 1


def test_variants_must_be_scored_on_the_same_examples(topics):
    other = tiny.write_csv(topics.parent / "other.csv", tiny.sentences(90, seed=3))
    topics.write_text(
        topics.read_text() + f"  elsewhere: {{strategy: {{type: full}}, data: {{train: {{path: {other}}}}}}}\n"
    )
    with pytest.raises(
        InputError, match="variant 'elsewhere' would score 'test' on other examples than variant 'linear'"
    ):
        preflight(load(topics))


def test_variants_may_learn_from_fewer_examples(topics):
    topics.write_text(topics.read_text() + "  few: {strategy: {type: full}, data: {split: {train: 12}}}\n")
    found = preflight(load(topics))
    assert {name: len(data.train.examples) for name, data in found.data.items()} == {
        "linear": 48,
        "full": 48,
        "few": 12,
    }


def test_no_held_out_example_is_in_training(topics):
    data = preflight(load(topics)).data["full"]
    texts = {
        name: {tuple(example.inputs["input_ids"]) for example in encoded.examples}
        for name, encoded in {"train": data.train, "validation": data.validation, **data.held_out}.items()
    }
    assert {name: len(found) for name, found in texts.items()} == {"train": 48, "validation": 12, "test": 30}
    assert len(set.union(*texts.values())) == 90


def test_the_split_is_the_recipes_unless_it_varies(topics):
    fixed, varying = load(topics, "data.split.seed=4"), load(topics, "vary=[split, init]")
    assert [split_seed(fixed, fixed.variants[0], seed) for seed in (0, 1)] == [4, 4]
    seeds = [split_seed(varying, varying.variants[0], seed) for seed in (0, 1)]
    assert seeds[0] != seeds[1]


def test_errors_get_their_line(topics):
    from finetune.core.errors import bad_input

    with pytest.raises(InputError) as caught, located(load(topics)):
        raise bad_input("train.epochs", "is wrong")
    assert caught.value.problems[0].where.endswith("topics.yaml:9")


def test_examples_longer_than_the_model_are_refused(topics, chats):
    long = "task.max_length=512"
    with pytest.raises(InputError, match=r"needs 3\d\d tokens, and the model has room for 128") as caught:
        preflight(load(chats, "task.max_new_tokens=300"))
    assert {problem.path for problem in caught.value.problems} == {"task.max_length"}
    preflight(load(topics, long))  # the tokenizer cuts at the model's 128


def test_variants_cannot_run_on_different_devices(topics):
    with pytest.raises(InputError, match="a study runs on one device") as caught:
        preflight(load(topics, "variants.full.model.device=cpu"))
    assert caught.value.problems[0].path == "model.device"


def test_every_seeds_own_split_is_checked(topics):
    """The rare label is in the training part of some splits, and held out in others."""
    news = topics.parent / "news.csv"
    news.write_text(news.read_text() + "a label of one example,rare\n")

    def unseen(seeds):
        try:
            preflight(load(topics, "vary=[split]", "data.split.stratify=null", f"seeds={seeds}"))
        except InputError as error:
            return "no training example has: rare" in str(error)
        return False

    alone = {seed: unseen([seed]) for seed in range(8)}
    fine, bad = (next(seed for seed, wrong in alone.items() if wrong == wanted) for wanted in (False, True))
    assert unseen([fine, bad])


ENCODER_DECODERS = ["Bart", "MBart", "Pegasus", "Marian", "M2M100", "T5"]


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_chat_with_an_encoder_decoder_is_refused_by_name(chats, tmp_path, decoder_folder, kind):
    """Its decoder would run alone, with new embeddings."""
    config = getattr(tf, f"{kind}Config")(d_model=32, pad_token_id=0, eos_token_id=2, decoder_start_token_id=2)
    shutil.copytree(decoder_folder, tmp_path / "model")
    config.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=rf"a {config.model_type} model, an encoder-decoder") as caught:
        preflight(load(chats, f"model.source={tmp_path / 'model'}"))
    assert caught.value.problems[0].path == "model.source"


def test_a_base_that_lacks_weights_is_refused_and_what_the_recipe_names_learns_in_every_variant(
    topics, encoder_folder, monkeypatch
):
    monkeypatch.setattr(models, "load_base", lambda *_, **__: pytest.fail("weights were loaded"))
    folder = shutil.copytree(encoder_folder, topics.parent / "decoding")
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "is_decoder": True, "add_cross_attention": True}))
    topics.write_text(
        topics.read_text().replace(str(encoder_folder), str(folder))
        + "  lora: {strategy: {type: adapter, rank: 2}}\n  biases: {strategy: {type: partial, parts: bias}}\n"
    )
    with pytest.raises(InputError, match=r"model.source: the checkpoint .* does not fit its model") as error:
        preflight(load(topics))
    assert "write model.new: [crossattention]" in error.value.problems[0].advice
    found = preflight(load(topics, "model.new=[crossattention]"))
    assert "base model: drawn afresh in each run, beside the head: " in found.lines()[-1]
    # 99 of the head, and 2 blocks of 4 projections of 32 x 32 and a norm.
    assert found.parameters["linear"]["trainable"] == 99 + 2 * (4 * (32 * 32 + 32) + 64)
    assert found.parameters["lora"]["trainable"] > found.parameters["linear"]["trainable"]
    assert found.parameters["biases"]["trainable"] > found.parameters["linear"]["trainable"]


def with_more_tokens(folder, target, *tokens):
    """A copy of a model whose tokenizer knows tokens that its table has no rows for."""
    shutil.copytree(folder, target)
    tokenizer = tf.AutoTokenizer.from_pretrained(target)
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    tokenizer.save_pretrained(target)
    return target


@pytest.mark.parametrize("held_out", [False, True])
def test_a_token_without_a_row_in_the_models_table_is_refused(topics, encoder_folder, tmp_path, held_out):
    folder = with_more_tokens(encoder_folder, tmp_path / "model", "<|one|>", "<|two|>")
    if held_out:
        tiny.write_csv(tmp_path / "more.csv", [("a <|two|> goal", "sport"), ("a bank", "money")])
        topics.write_text(topics.read_text() + f"evaluate: [{{name: more, data: {{path: {tmp_path / 'more.csv'}}}}}]\n")
    else:
        file = next(topics.parent.glob("*.csv"))
        file.write_text(file.read_text() + "a <|two|> goal,sport\na <|one|> goal,sport\n" * 20)
    with pytest.raises(InputError, match="tokens and the model a table for") as error:
        preflight(load(topics, f"model.source={folder}"))
    (problem,) = error.value.problems
    assert problem.path == "model.source" and "<|" in problem.found and "resize_token_embeddings(" in problem.advice


def test_a_token_without_a_row_that_chats_write_as_text_is_refused(chats, decoder_folder, tmp_path):
    """Control tokens inside a text are read as plain text; who wrote this one meant a token that there is not."""
    folder = with_more_tokens(decoder_folder, tmp_path / "model", "<|one|>")
    file = next(chats.parent.glob("*.jsonl"))
    row = json.dumps({"prompt": "goal", "completion": "<|one|> team"})
    file.write_text(file.read_text() + f"{row}\n" * 20)
    preflight(load(chats))
    with pytest.raises(InputError, match=r"the token '<\|one\|>', number \d+, which the model does not know"):
        preflight(load(chats, f"model.source={folder}"))


def test_tokens_without_a_row_that_no_example_has_do_no_harm(topics, encoder_folder, tmp_path):
    folder = with_more_tokens(encoder_folder, tmp_path / "model", "<|one|>", "<|two|>")
    assert preflight(load(topics, f"model.source={folder}")).parameters["full"]["trainable"] > 0


def test_a_padding_token_without_a_row_is_refused(topics, encoder_folder, tmp_path):
    folder = with_more_tokens(encoder_folder, tmp_path / "model", "<|pad|>")
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = "<|pad|>"
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=r"its padding has the token '<\|pad\|>'"):
        preflight(load(topics, f"model.source={folder}"))
