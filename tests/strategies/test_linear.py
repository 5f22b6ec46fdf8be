"""A linear probe: the head and nothing else."""

import pytest
import torch
from safetensors import safe_open

HEADS = {
    "bert": {"classifier.weight", "classifier.bias"},
    "llama-classifier": {"score.weight"},
    "t5-classifier": {
        f"classification_head.{layer}.{kind}" for layer in ("dense", "out_proj") for kind in ("weight", "bias")
    },
}


@pytest.mark.parametrize("build", HEADS)
def test_only_the_head_learns(prepare, build):
    made = prepare(build, "linear")
    assert made.trained == HEADS[build]
    assert all(torch.equal(value, made.base.state_dict()[name]) for name, value in made.model.state_dict().items())


def test_a_model_without_a_new_head_is_refused(refusal):
    problem = refusal("llama", "linear")
    assert problem.path == "strategy.type" and "no head to train" in problem.found
    assert "partial or adapter" in problem.advice


@pytest.mark.parametrize("build", HEADS)
def test_only_the_head_is_saved_and_it_is_enough(prepare, shake, logits, tmp_path, build):
    made = prepare(build, "linear", seed=1)
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    [file] = tmp_path.iterdir()
    with safe_open(file, "pt") as saved:
        assert set(saved.keys()) == HEADS[build]
    fresh = prepare(build, "linear", seed=2)
    assert not torch.allclose(logits(fresh.model), logits(made.model))
    fresh.strategy.restore(fresh.model, tmp_path)
    assert torch.equal(logits(fresh.model), logits(made.model))
