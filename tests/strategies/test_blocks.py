"""Finding a model's blocks, whatever its build."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune.core.errors import InputError
from finetune.strategies.blocks import find_blocks, heights, last_blocks, named_blocks, parameters_above

COMMON = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 50}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    **{
        f"{half}_{what}": size
        for half in ("encoder", "decoder")
        for what, size in (("attention_heads", 4), ("ffn_dim", 64))
    },
}


def weightless(kind, auto=AutoModelForSequenceClassification, **shape):
    with torch.device("meta"):
        return auto.from_config(AutoConfig.for_model(kind, **{**COMMON, **shape}))


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
        ("bart", 5, BART),
    ],
)
def test_blocks_of_other_builds_are_counted(kind, blocks, shape):
    classifiers = ("distilbert", "roberta", "albert", "modernbert", "bart")
    auto = AutoModelForSequenceClassification if kind in classifiers else AutoModelForCausalLM
    assert len(find_blocks(weightless(kind, auto, **shape))) == blocks


def test_a_model_without_blocks_has_none():
    assert find_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2))) == []


def test_more_blocks_than_there_are_are_refused(bases):
    with pytest.raises(InputError) as error:
        last_blocks(bases("t5").base.model, 6, "strategy.last")
    (problem,) = error.value.problems
    assert problem.path == "strategy.last" and "is 6, but this model has 5 blocks" in problem.found
    assert "at most 5" in problem.advice


@pytest.mark.parametrize("build", ["t5", "bart"])
def test_of_an_encoder_decoder_the_decoders_blocks_are_the_last(bases, build):
    """Then, when there are not enough of them, the encoder's."""
    model = bases("t5").base.model if build == "t5" else weightless("bart", **BART)
    halves = ["encoder.block", "decoder.block"] if build == "t5" else ["model.encoder.layers", "model.decoder.layers"]
    encoder, decoder = [f"{halves[0]}.{n}" for n in range(2)], [f"{halves[1]}.{n}" for n in range(3)]
    for count in (1, 3):
        assert last_blocks(model, count, "") == decoder[-count:]
    assert last_blocks(model, 4, "") == [encoder[1], *decoder]


@pytest.mark.parametrize(
    "wanted, found",
    [
        ([0, 4], ["encoder.block.0", "decoder.block.2"]),
        ([-1, -5], ["decoder.block.2", "encoder.block.0"]),
        (["decoder.block.1"], ["decoder.block.1"]),
        (["block.1"], ["encoder.block.1", "decoder.block.1"]),
    ],
)
def test_blocks_are_named_by_number_or_name(bases, wanted, found):
    assert named_blocks(bases("t5").base.model, wanted, "strategy.blocks") == found


@pytest.mark.parametrize(
    "wanted, said, advice",
    [
        (5, "is 5, but this model has 5 blocks", "write 0 to 4 from the bottom, or -1 to -5 from the top"),
        (-6, "is -6, but this model has 5 blocks", "write 0 to 4"),
        ("decoder.blok.1", "no block 'decoder.blok.1'", "did you mean 'decoder.block.1'"),
        ("lock.1", "no block 'lock.1'", "decoder.block.1"),
    ],
)
def test_a_block_that_there_is_not_is_refused(bases, wanted, said, advice):
    with pytest.raises(InputError) as error:
        named_blocks(bases("t5").base.model, [0, wanted], "strategy.blocks")
    (problem,) = error.value.problems
    assert problem.path == "strategy.blocks.1" and said in problem.found and advice in problem.advice


@pytest.mark.parametrize(
    "build, outside",
    [
        ("bert", {"bert.embeddings": 0, "bert.pooler": 3, "classifier": 3}),
        ("llama", {"model.embed_tokens": 0, "model.norm": 3}),
        ("gpt2", {"transformer.wte": 0, "transformer.wpe": 0, "transformer.ln_f": 3}),
        (
            "t5-classifier",
            {
                "transformer.shared": 0,
                "transformer.encoder.final_layer_norm": 2,
                "transformer.decoder.final_layer_norm": 6,
                "classification_head": 6,
            },
        ),
    ],
)
def test_each_parameter_has_its_height(bases, build, outside):
    model = bases(build).base.model
    for name, height in heights(model).items():
        inside = [number for number, block in enumerate(find_blocks(model), 1) if name.startswith(f"{block}.")]
        beside = [own for start, own in outside.items() if name.startswith(f"{start}.")]
        assert [height] == inside + beside, name


@pytest.mark.parametrize(
    "kind, shape, below, above",
    [
        (
            "bart",
            BART,
            [
                f"model.{half}.{what}"
                for half in ("encoder", "decoder")
                for what in ("embed_positions", "layernorm_emb")
            ],
            ["classification_head"],
        ),
        ("mpnet", {"num_hidden_layers": 2}, ["mpnet.encoder.relative_attention_bias"], ["classifier"]),
        (
            "deberta-v2",
            {
                "num_hidden_layers": 2,
                "relative_attention": True,
                "norm_rel_ebd": "layer_norm",
                "conv_kernel_size": 3,
            },
            [f"deberta.encoder.{what}" for what in ("rel_embeddings", "LayerNorm", "conv")],
            ["pooler", "classifier"],
        ),
        (
            "opt",
            {"num_hidden_layers": 2, "ffn_dim": 64, "word_embed_proj_dim": 16},
            ["model.decoder.embed_positions", "model.decoder.project_in"],
            ["model.decoder.final_layer_norm", "model.decoder.project_out"],
        ),
    ],
)
def test_what_is_registered_out_of_order_is_told_by_its_name(kind, shape, below, above):
    model = weightless(kind, AutoModelForCausalLM if kind == "opt" else AutoModelForSequenceClassification, **shape)
    last = find_blocks(model)[-1]
    names = {name for name, _ in model.named_parameters()}
    assert all(any(name.startswith(start) for name in names) for start in [*below, *above])
    wanted = {name for name in names if name.startswith((f"{last}.", *above))}
    assert parameters_above(model, last) == wanted
    assert all(height == 0 for name, height in heights(model).items() if name.startswith(tuple(below)))


def test_above_a_block_of_the_encoder_lies_all_of_the_decoder(bases):
    names = parameters_above(bases("t5").base.model, "encoder.block.1")
    wanted = ("encoder.block.1.", "encoder.final_layer_norm.", "decoder.")
    assert names == {name for name, _ in bases("t5").base.model.named_parameters() if name.startswith(wanted)}


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
