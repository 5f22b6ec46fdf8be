"""Partial tuning: the last blocks, or what matches a pattern."""

from fnmatch import fnmatchcase

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open

from finetune.strategies.partial import Partial

LAST = {
    # build: (what the last block's names begin with, what lies above it)
    "bert": ("bert.encoder.layer.1.", {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}),
    "llama": ("model.layers.1.", {"model.norm.weight"}),
    "llama-classifier": ("model.layers.1.", {"model.norm.weight"}),
    "gpt2": ("transformer.h.1.", {"transformer.ln_f.weight", "transformer.ln_f.bias"}),
    "t5": ("decoder.block.2.", {"decoder.final_layer_norm.weight"}),
    "t5-classifier": ("transformer.decoder.block.2.", {"transformer.decoder.final_layer_norm.weight"}),
}


def names_of(made):
    return {name for name, _ in made.base.named_parameters()}


@pytest.mark.parametrize("build", LAST)
def test_the_last_block_what_lies_above_and_the_head_learn(prepare, build):
    made = prepare(build, "partial", last=1)
    block, above = LAST[build]
    assert made.trained == {name for name in names_of(made) if name.startswith(block)} | above | made.head
    assert all(torch.equal(value, made.base.state_dict()[name]) for name, value in made.model.state_dict().items())


def test_all_blocks_leave_the_embeddings(prepare):
    made = prepare("bert", "partial", last=2)
    assert names_of(made) - made.trained == {name for name in names_of(made) if "embeddings" in name}


def test_an_encoder_decoder_counts_back_from_the_decoders_end(prepare):
    made = prepare("t5", "partial", last=4)
    frozen = {name for name in names_of(made) if name.startswith(("shared", "encoder.block.0"))}
    assert names_of(made) - made.trained == frozen


@pytest.mark.parametrize(
    "build, patterns", [("bert", ["*.bias"]), ("gpt2", ["*.ln_*", "*.wpe.*"]), ("llama", ["*embed*"])]
)
def test_what_matches_a_pattern_learns(prepare, build, patterns):
    made = prepare(build, "partial", patterns=patterns)
    matching = {name for name in names_of(made) if any(fnmatchcase(name, pattern) for pattern in patterns)}
    assert made.trained == matching | made.head and matching


def test_blocks_and_patterns_together_are_their_union(prepare):
    union = prepare("bert", "partial", last=1).trained | prepare("bert", "partial", patterns=["*.bias"]).trained
    assert prepare("bert", "partial", last=1, patterns=["*.bias"]).trained == union


def test_more_blocks_than_there_are_are_refused(refusal):
    problem = refusal("bert", "partial", last=3)
    assert problem.path == "strategy.last" and "is 3, but this model has 2 blocks" in problem.found


def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_name(refusal):
    problem = refusal("bert", "partial", patterns=["*.bias", "bert.encoder.layer.*.atention.self.query.weight"])
    assert problem.path == "strategy.patterns.1" and "matches no parameter" in problem.found
    assert "did you mean 'bert.encoder.layer.*.attention.self.query.weight'" in problem.advice


@pytest.mark.parametrize("options", [{}, {"last": None}, {"patterns": []}, {"last": 0}])
def test_options_that_train_nothing_are_refused(options):
    with pytest.raises(ValidationError, match=r"nothing says what learns|greater than or equal to 1"):
        Partial.Options(type="partial", **options)


@pytest.mark.parametrize("build", LAST)
def test_only_what_learnt_is_saved_and_it_is_enough(prepare, shake, logits, tmp_path, build):
    made = prepare(build, "partial", seed=1, last=1)
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    [file] = tmp_path.iterdir()
    with safe_open(file, "pt") as saved:
        assert set(saved.keys()) == made.trained
    size = sum(made.model.get_parameter(name).numel() for name in made.trained) * 4
    assert size < file.stat().st_size < size + 20_000
    fresh = prepare(build, "partial", seed=2, last=1)
    fresh.strategy.restore(fresh.model, tmp_path)
    assert torch.equal(logits(fresh.model), logits(made.model))
