"""What needs more memory than its device has is refused before anything is loaded, with what would fit."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from torch.autograd.graph import saved_tensors_hooks

from finetune import check, recipe
from finetune.core.errors import InputError
from finetune.runner import fitting
from finetune.runner.fitting import Need, activation_bytes, room_of, tokens_that_fit
from finetune.study.preflight import preflight

FULL = ["variants=null", "strategy={type: full}"]


@pytest.fixture
def room(monkeypatch):
    """Says how many bytes a device has."""

    def set_to(size):
        monkeypatch.setattr(fitting, "room_of", lambda device: size)

    return set_to


@pytest.fixture
def weights(topics):
    """Count the weights of the recipe's model."""
    [counted] = preflight(recipe.load(topics, FULL)).parameters.values()
    return counted["total"]


def refused(path, *overrides):
    with pytest.raises(InputError) as caught:
        preflight(recipe.load(path, [*FULL, *overrides]))
    [problem] = caught.value.problems
    assert problem.path == "model.source"
    return problem


@pytest.mark.parametrize(
    ("overrides", "each"),
    [
        ([], 16),
        (["compute.states=bfloat16"], 12),
        (["compute.states=8bit"], 10),
        (["model.dtype=bfloat16", "compute.weights=bfloat16", "compute.states=8bit"], 6),
        (["model.dtype=bfloat16", "compute.weights=bfloat16", "compute.rounding=compensated"], 14),
        (["train.optimizer=lion"], 12),
        (["train.optimizer=adafactor"], 8),
        (["train.optimizer=prodigy", "train.learning_rate=1"], 24),
    ],
)
def test_each_weight_takes_what_the_arithmetic_says(topics, room, weights, overrides, each):
    room(each * weights)
    preflight(recipe.load(topics, [*FULL, *overrides]))
    room(each * weights - 1)
    assert "needs at least" in refused(topics, *overrides).found


def test_what_would_fit_is_said_from_the_smallest_change_on(topics, room, weights):
    room(9 * weights)
    advice = refused(topics, "model.dtype=bfloat16").advice
    assert advice.startswith("would fit: compute.weights: bfloat16 with states: 8bit")
    assert "compute.shard: true over 2 such devices" in advice and "method: lora" in advice
    assert "compute.states: 8bit (" not in advice, "ten bytes do not fit nine"
    room(weights)
    assert "compute.shard: true over 16 such devices" in refused(topics).advice
    room(weights)
    assert refused(topics, "train.optimizer=prodigy", "train.learning_rate=1").advice == "choose a smaller model"


def test_what_does_not_learn_takes_its_own_bytes_alone(topics, room, weights):
    room(8 * weights)
    preflight(
        recipe.load(topics, ["variants=null", "strategy={type: adapter, method: lora, rank: 1}", "model.dtype=float32"])
    )


def test_processes_share_what_is_split_and_a_machine(topics, room, weights, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    room(8 * weights)
    preflight(recipe.load(topics, [*FULL, "compute.shard=true"]))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    refused(topics, "compute.shard=true")


def test_a_recipe_may_be_checked_where_it_does_not_fit(topics, room, weights):
    room(8 * weights)
    assert any("needs at least" in line for line in check(recipe.load(topics, FULL)).lines())


def test_a_container_has_no_more_than_its_limit(tmp_path, monkeypatch):
    whole = room_of(torch.device("cpu"))
    assert whole > 1e8
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(fitting, "LIMITS", (str(limit),))
    limit.write_text("max\n")
    assert room_of(torch.device("cpu")) >= whole
    limit.write_text("1000000\n")
    assert room_of(torch.device("cpu")) == 1_000_000
    assert room_of(torch.device("meta")) is None


def test_a_need_is_that_of_each_of_its_processes():
    assert Need(100, 10, "bfloat16", "float32", "float32", 2, processes=4).bytes == (200 + 160) / 4


# Activations


@pytest.mark.parametrize("length", [64, 190])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_activations_are_about_what_autograd_keeps(family, length):
    shape = {"hidden_size": 384, "num_hidden_layers": 3, "num_attention_heads": 12, "vocab_size": 50}
    config = transformers.AutoConfig.for_model(family, intermediate_size=1024 if family == "llama" else 1536, **shape)
    model = transformers.AutoModel.from_config(config).eval()
    held, kept = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}, {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor, tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randint(0, 50, (2, length)))
    found = sum(size for place, (_, size) in kept.items() if place not in held) / (2 * length)
    assert found == pytest.approx(activation_bytes(config, length, torch.float32), rel=0.3)


def test_attention_weights_are_counted_where_they_are_kept():
    config = transformers.AutoConfig.for_model("bert", hidden_size=100, num_hidden_layers=1, num_attention_heads=10)
    assert activation_bytes(config, 40, torch.bfloat16) == 34 * 100 + 5 * 10 * 40
    assert activation_bytes(config, 4000, torch.bfloat16) == 34 * 100
    assert activation_bytes(config, 40, torch.float32) == 2 * 34 * 100
    assert activation_bytes(transformers.PretrainedConfig(), 40, torch.float32) == 0


@pytest.mark.parametrize(
    ("family", "shape", "least", "most"),
    [
        ("bert", (384, 6, 12), 3072, math.inf),  # MiniLM: whatever size was measured to be fastest
        ("llama", (576, 30, 9), 500, 1000),  # SmolLM2-135M
        ("llama", (4096, 32, 32), 256, 256),  # of 7 billion weights
    ],
)
def test_the_larger_a_model_the_fewer_tokens_at_once(family, shape, least, most):
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    config = transformers.AutoConfig.for_model(family, **dict(zip(names, shape, strict=True)))
    plain = SimpleNamespace(compute=SimpleNamespace(gradient_checkpointing=False))
    examples = SimpleNamespace(lengths=np.full(32, 190))
    assert least <= tokens_that_fit(plain, config, examples, torch.bfloat16) <= most
