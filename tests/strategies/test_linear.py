"""A linear probe: the head and nothing else. A linearised model: everything, saved with where its own weights began."""

import pytest
import torch
from safetensors import safe_open

from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.core.registry import MITIGATIONS
from finetune.models import head_parameters
from finetune.runner.build import check_together
from finetune.strategies.base import train_only
from finetune.strategies.linear import Linear, LinearOptions
from tests.examples import Example
from tests.replicas.groups import Variant

EXAMPLES = {
    "linear": Example({"solver": "steps"}, rate=3e-2),
    "linear/linearised": Example({"mode": "linearised"}),
}

HEADS = {
    "bert": {"classifier.weight", "classifier.bias"},
    "llama-classifier": {"score.weight"},
    "t5-classifier": {
        f"classification_head.{layer}.{kind}" for layer in ("dense", "out_proj") for kind in ("weight", "bias")
    },
}


@pytest.mark.parametrize("build", HEADS)
def test_only_the_head_learns(prepare, build):
    made = prepare(build, "linear", solver="steps")
    assert made.trained == HEADS[build]
    assert all(torch.equal(value, made.base.state_dict()[name]) for name, value in made.model.state_dict().items())


def test_a_model_without_a_new_head_is_refused(refusal):
    problem = refusal("llama", "linear")
    assert problem.path == "strategy.type" and "no head to train" in problem.found
    assert "partial or adapter" in problem.advice


@pytest.mark.parametrize("build", HEADS)
def test_only_the_head_is_saved_and_it_is_enough(prepare, shake, logits, tmp_path, build):
    made = prepare(build, "linear", seed=1, solver="steps")
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    [file] = tmp_path.iterdir()
    with safe_open(file, "pt") as saved:
        assert set(saved.keys()) == HEADS[build]
    fresh = prepare(build, "linear", seed=2, solver="steps")
    assert not torch.allclose(logits(fresh.model), logits(made.model))
    fresh.strategy.restore(fresh.model, tmp_path)
    assert torch.equal(logits(fresh.model), logits(made.model))


@pytest.mark.parametrize("build", ["bert", "llama", "llama-classifier", "gpt2", "t5-classifier"])
def test_linearised_everything_learns_and_starts_as_the_base_model(prepare, logits, build):
    made = prepare(build, "linear", mode="linearised")
    assert made.trained == {name for name, _ in made.base.named_parameters()}
    assert all(torch.equal(value, made.model.get_parameter(name)) for name, value in made.base.named_parameters())
    torch.testing.assert_close(logits(made.model), logits(made.base), rtol=0, atol=2e-6)


def test_an_encoder_decoder_that_generates_is_not_linearised(refusal):
    problem = refusal("t5", "linear", mode="linearised")
    assert problem.path == "strategy.mode" and "encoder-decoder" in problem.found


@pytest.mark.parametrize("build", ["bert", "llama-classifier", "t5-classifier", "llama"])
def test_linearised_what_is_saved_is_the_weights_and_where_the_runs_own_began(prepare, shake, logits, tmp_path, build):
    made = prepare(build, "linear", seed=1, mode="linearised")
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    files = {}
    for name in ("trained", "origin"):
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as saved:
            files[name] = set(saved.keys())
    assert len(list(tmp_path.iterdir())) == 2
    assert files == {"trained": made.trained, "origin": {f"{name}_origin" for name in HEADS.get(build, ())}}
    fresh = prepare(build, "linear", seed=2, mode="linearised")
    assert not torch.allclose(logits(fresh.model), logits(made.model))
    fresh.strategy.restore(fresh.model, tmp_path)
    assert torch.equal(logits(fresh.model), logits(made.model))


def test_linearised_where_mitigations_moved_weights_is_saved_too(bases, shake, logits, tmp_path):
    """A run's noise on pretrained weights is part of where its tangent touches, and another run has other noise."""

    def prepared(noise):
        model = bases("bert").base.copy(Streams(0))
        head = head_parameters(model)
        moved = model.get_parameter("bert.encoder.layer.0.output.dense.weight")
        moved.data += noise
        changed = frozenset({"bert.encoder.layer.0.output.dense.weight"})
        strategy = Linear(LinearOptions(type="linear", mode="linearised"), changed)
        return strategy, strategy.prepare(model, head)

    strategy, model = prepared(noise=0.1)
    shake(model)
    strategy.save(model, tmp_path)
    strategy, fresh = prepared(noise=0.0)
    strategy.restore(fresh, tmp_path)
    assert torch.equal(logits(fresh), logits(model))


def test_linearised_weights_in_the_plain_model_are_another_model(prepare, shake, logits):
    made = prepare("bert", "linear", mode="linearised")
    shake(made.model)
    train_only(made.base, made.trained)
    made.base.load_state_dict(made.model.state_dict(), strict=False)
    assert not torch.allclose(logits(made.base), logits(made.model), rtol=1e-2)


def test_linearised_smart_is_refused_with_the_reason():
    smart = MITIGATIONS.get("smart")(MITIGATIONS.get("smart").Options(type="smart"))
    check_together(Linear(LinearOptions(type="linear", solver="steps")), [smart])
    with pytest.raises(InputError, match=r"'smart' cannot stand beside 'linear': .*derived by the weights"):
        check_together(Linear(LinearOptions(type="linear", mode="linearised")), [smart])


@pytest.mark.parametrize("task", ["classification", "chat"])
def test_linearised_training_works_in_bfloat16(tmp_path, encoder_folder, decoder_folder, task):
    """Where our own kernel for attention would be at work, which has no forward-mode derivative; and it ends near
    where float32 ends."""
    folder = decoder_folder if task == "chat" else encoder_folder
    variant = Variant.of(tmp_path, folder, task, {"type": "linear", "mode": "linearised"})
    [half], [single] = (variant.run([0], str(dtype), dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    assert half.losses[-1] < half.losses[0]
    assert half.losses != single.losses and half.losses == pytest.approx(single.losses, rel=0.05)
    assert half.facts["utilisation"] is not None
