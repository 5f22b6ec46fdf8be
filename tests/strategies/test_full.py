"""Full tuning: everything learns, and what is saved is a complete model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune.strategies.base import trained_parameters
from tests.examples import Example

EXAMPLES = {"full": Example(rate=3e-3)}

BUILDS = ["bert", "llama", "llama-classifier", "gpt2", "t5", "t5-classifier"]


@pytest.mark.parametrize("build", BUILDS)
def test_every_parameter_learns_and_none_has_changed(prepare, build):
    made = prepare(build, "full")
    assert made.trained == {name for name, _ in made.base.named_parameters()}
    assert all(torch.equal(value, made.base.state_dict()[name]) for name, value in made.model.state_dict().items())


@pytest.mark.parametrize(
    "build, auto",
    [
        ("bert", AutoModelForSequenceClassification),
        ("llama-classifier", AutoModelForSequenceClassification),
        ("llama", AutoModelForCausalLM),
        ("gpt2", AutoModelForCausalLM),
    ],
)
def test_the_saved_folder_is_a_model_that_transformers_loads(prepare, shake, logits, tmp_path, build, auto):
    made = prepare(build, "full")
    before = logits(made.model)
    shake(made.model)
    wanted = logits(made.model)
    assert not torch.allclose(before, wanted)
    made.strategy.save(made.model, tmp_path)
    assert torch.equal(logits(auto.from_pretrained(tmp_path)), wanted)


@pytest.mark.parametrize("build", BUILDS)
def test_restore_undoes_what_another_seed_did(prepare, shake, logits, tmp_path, build):
    made = prepare(build, "full", seed=1)
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    fresh = prepare(build, "full", seed=2)
    fresh.strategy.restore(fresh.model, tmp_path)
    assert torch.equal(logits(fresh.model), logits(made.model))
    assert set(trained_parameters(fresh.model)) == made.trained


def test_what_came_in_bfloat16_is_restored_in_float32(prepare, shake, logits, tmp_path):
    made = prepare("llama", "full")
    made.model.config.dtype = torch.bfloat16
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    fresh = prepare("llama", "full")
    fresh.strategy.restore(fresh.model, tmp_path)
    assert torch.equal(logits(fresh.model), logits(made.model))
