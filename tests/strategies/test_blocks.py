"""Finding a model's blocks, whatever its build."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune.errors import InputError
from finetune.strategies.blocks import find_blocks, last_blocks, parameters_above


@pytest.mark.parametrize(
    "build, blocks",
    [
        ("bert", ["bert.encoder.layer.0", "bert.encoder.layer.1"]),
        ("llama", ["model.layers.0", "model.layers.1"]),
        ("gpt2", ["transformer.h.0", "transformer.h.1"]),
        ("t5", [f"encoder.block.{block}" for block in range(2)] + [f"decoder.block.{block}" for block in range(3)]),
    ],
)
def test_blocks_stand_bottom_first(bases, build, blocks):
    model = bases(build).base.model
    assert find_blocks(model) == blocks
    assert last_blocks(model, 2, "strategy.last") == blocks[-2:]


@pytest.mark.parametrize(
    "kind, blocks, shape",
    [
        ("distilbert", 2, {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 2}),
        ("roberta", 3, {"num_hidden_layers": 3}),
        ("albert", 1, {"num_hidden_layers": 4, "num_hidden_groups": 1, "embedding_size": 16}),
        ("modernbert", 2, {"num_hidden_layers": 2, "pad_token_id": 0}),
        ("opt", 2, {"num_hidden_layers": 2, "ffn_dim": 64, "word_embed_proj_dim": 32}),
        ("gpt_neox", 2, {"num_hidden_layers": 2}),
        ("mixtral", 2, {"num_hidden_layers": 2, "num_key_value_heads": 2, "num_local_experts": 3}),
        ("gemma3_text", 2, {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 8}),
    ],
)
def test_blocks_of_other_builds_are_counted(kind, blocks, shape):
    common = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 50}
    encoders = ("distilbert", "roberta", "albert", "modernbert")
    auto = AutoModelForSequenceClassification if kind in encoders else AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(AutoConfig.for_model(kind, **{**common, **shape}))
    assert len(find_blocks(model)) == blocks


def test_a_model_without_blocks_has_none():
    assert find_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2))) == []


def test_more_blocks_than_there_are_are_refused(bases):
    with pytest.raises(InputError) as error:
        last_blocks(bases("t5").base.model, 6, "strategy.last")
    (problem,) = error.value.problems
    assert problem.path == "strategy.last" and "is 6, but this model has 5 blocks" in problem.found
    assert "at most 5" in problem.advice


@pytest.mark.parametrize(
    "build, block, above",
    [
        ("bert", "bert.encoder.layer.1", ["bert.pooler.dense", "classifier"]),
        ("llama", "model.layers.1", ["model.norm"]),
        ("gpt2", "transformer.h.1", ["transformer.ln_f"]),
        ("t5", "decoder.block.2", ["decoder.final_layer_norm"]),
    ],
)
def test_what_lies_above_a_block(bases, build, block, above):
    model = bases(build).base.model
    wanted = {name for name, _ in model.named_parameters() if name.startswith((f"{block}.", *above))}
    assert parameters_above(model, block) == wanted


def test_an_untied_output_layer_is_not_above_the_blocks(bases):
    config = bases("llama").base.model.config.to_dict() | {"tie_word_embeddings": False}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    assert "lm_head.weight" in dict(model.named_parameters())
    assert "lm_head.weight" not in parameters_above(model, "model.layers.1")
