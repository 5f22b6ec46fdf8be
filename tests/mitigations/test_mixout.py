"""Mixout: unbiased in weights and gradients, whole inputs at a time, in dropout's place, and gone when scoring."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from finetune.core.errors import InputError
from finetune.mitigations.mixout import Mixout, linear_layers, mixed
from finetune.replicas.group import ReplicaGroup
from tests import tiny
from tests.examples import Example
from tests.mitigations.steps import EXACT, begun, training_state
from tests.replicas.groups import Variant, far

EXAMPLES = {"mixout": Example({"p": 0.5})}


def wandered(layer, by=1.0):
    """A layer whose weight training has moved from where it was; returns how far, as a tensor."""
    moved = by * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        layer.weight += moved
    return moved


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return torch.nn.Linear(12, 5)


@pytest.mark.parametrize("p", [0.1, 0.7])
def test_the_mean_over_steps_is_the_weight(layer, p):
    model, count = torch.nn.Sequential(layer), 4000
    training = training_state(model)
    mixout = begun(Mixout, training, p=p)
    moved, total = wandered(layer), torch.zeros_like(layer.weight)
    for training.step in range(count):
        with mixout.passing(), torch.no_grad():
            total += layer.weight
    error = moved.abs() * math.sqrt(p / (1 - p) / count)  # standard error of the mean
    assert bool(((total / count - layer.weight).abs() < 5 * error).all())


@given(p=st.floats(0, 0.95), values=st.lists(st.floats(-9, 9), min_size=2, max_size=2), mask=st.booleans())
def test_it_is_the_papers_formula(p, values, mask):
    weight, start = torch.tensor(values, dtype=torch.float64)
    wanted = (mask * start + (1 - mask) * weight - p * start) / (1 - p)
    share = torch.tensor((1 - mask) / (1 - p), dtype=torch.float64)
    assert float(mixed(weight, start, share)) == pytest.approx(float(wanted), abs=1e-9)


def test_the_gradient_has_the_factor_too(layer):
    """Of each kept weight 1 / (1 - 0.7), not 1 as in the authors' backward; and on average the plain gradient."""
    training = training_state(torch.nn.Sequential(layer))
    mixout = begun(Mixout, training, p=0.7)
    wandered(layer)
    slopes = torch.arange(1.0, 61).view(5, 12)
    with mixout.passing():
        kept = (layer.weight != mixout._starts["0.weight"]).all(0)
        (layer.weight * slopes).sum().backward()
    assert 0 < int(kept.sum()) < 12
    assert torch.allclose(layer.weight.grad, slopes * kept / 0.3, rtol=1e-6)
    total, count = torch.zeros(5, 12), 4000
    for training.step in range(count):
        layer.weight.grad = None
        with mixout.passing():
            (layer.weight * slopes).sum().backward()
        total += layer.weight.grad
    assert bool(((total / count - slopes).abs() < 5 * slopes * math.sqrt(0.7 / 0.3 / count)).all())


def test_towards_1_the_weights_are_the_pretrained_ones(layer):
    before = layer.weight.detach().clone()
    mixout = begun(Mixout, training_state(torch.nn.Sequential(layer)), p=1 - 1e-12)
    wandered(layer)
    with mixout.passing():
        assert torch.equal(layer.weight, before)
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize("make", [lambda: torch.nn.Linear(40, 7), lambda: Conv1D(7, 40)], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize("count", [1, 3])
def test_whole_inputs_are_mixed_and_each_replica_draws_its_own(make, count):
    """Side by side each seed draws what it draws alone."""

    def drawn(seeds):
        torch.manual_seed(0)
        model = torch.nn.Sequential(make())
        start = model[0].weight.detach().clone()
        ReplicaGroup.stack(model, [dict(model.named_parameters())] * len(seeds))
        mixout = begun(Mixout, training_state(model, seeds), p=0.5)
        wandered(model[0])
        with mixout.passing():
            kept = (model[0].weight != start).view(len(seeds), *start.shape)
        return kept if model[0].weight.shape[-1] == 40 else kept.transpose(1, 2)  # (R, outputs, inputs)

    kept = drawn(range(count))
    assert bool((kept == kept[:, :1]).all()), "all outputs of an input, or none"
    assert all(5 < int(own.sum()) < 35 for own in kept[:, 0])
    assert all(torch.equal(kept[seed], drawn([seed])[0]) for seed in range(count))
    assert count == 1 or not torch.equal(kept[0], kept[1])


def test_a_step_has_one_draw_for_all_parts_and_the_next_another(layer):
    def weights(mixout):
        with mixout.passing():
            return layer.weight.detach().clone()

    training = training_state(torch.nn.Sequential(layer))
    mixout = begun(Mixout, training, p=0.5)
    wandered(layer)
    first, again = weights(mixout), weights(mixout)
    training.step = 1
    second = weights(mixout)
    training.step = 0
    assert torch.equal(first, again) and not torch.equal(first, second) and torch.equal(weights(mixout), first)


def test_the_layer_is_put_back_whatever_happens(layer):
    model = torch.nn.Sequential(layer, torch.nn.Dropout(0.5)).train()
    own, mixout = layer.weight, begun(Mixout, training_state(model), p=0.5)
    wandered(layer)
    with pytest.raises(RuntimeError, match="meanwhile"), mixout.passing():
        assert layer.weight is not own and not model[1].training
        raise RuntimeError("meanwhile")
    assert layer.weight is own and model[1].training and model.training


MODELS = {
    # build: (how it is saved, its Auto class, what is mixed in a block, what is besides)
    "bert": (
        tiny.save_encoder,
        AutoModelForSequenceClassification,
        {
            *(f"attention.self.{name}" for name in ("query", "key", "value")),
            *("attention.output.dense", "intermediate.dense", "output.dense"),
        },
        {"bert.pooler.dense"},
    ),
    "gpt2": (
        tiny.save_gpt2,
        AutoModelForCausalLM,
        {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"},
        set(),
    ),
    "llama": (
        tiny.save_decoder,
        AutoModelForCausalLM,
        {*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))},
        set(),
    ),
    "untied llama": (
        lambda folder: tiny.save_decoder(folder, tie_word_embeddings=False),
        AutoModelForCausalLM,
        {*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))},
        {"lm_head"},
    ),
    "t5": (
        tiny.save_t5,
        AutoModelForSeq2SeqLM,
        {
            *(f"layer.0.SelfAttention.{name}" for name in "qkvo"),
            *(f"layer.1.EncDecAttention.{name}" for name in "qkvo"),
            *(f"layer.{number}.DenseReluDense.{name}" for number in (1, 2) for name in ("wi", "wo")),
        },
        set(),
    ),
}


@pytest.mark.parametrize("build", MODELS)
def test_linear_layers_are_mixed_and_nothing_else(build, tmp_path):
    """Not the head, nor embeddings, norms and biases, nor an output layer that is tied to the embeddings."""
    save, auto, in_blocks, besides = MODELS[build]
    model = auto.from_pretrained(save(tmp_path))
    names = {name for name, _ in model.named_parameters() if not name.startswith("classifier")}
    found = {name.removesuffix(".weight") for name in linear_layers(model, names)}
    assert {re.sub(r"^.*?\.\d+\.", "", name) for name in found} == in_blocks | besides


@pytest.mark.parametrize("task", ["classification", "chat"])
def test_without_mixing_it_is_training_without_dropout(tmp_path, task):
    """p = 0 is the identity; and dropout is off, wherever a model keeps its probability."""
    save, none = (
        (tiny.save_encoder, {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
        if task == "classification"
        else (tiny.save_decoder, {"attention_dropout": 0.0})
    )
    dropping = {name: 0.5 for name in none}
    full, said = {"type": "full"}, [{"type": "mixout", "p": 0.0}]
    plain = Variant.of(tmp_path / "plain", save(tmp_path / "without", **none), task, full)
    treated = Variant.of(tmp_path / "treated", save(tmp_path / "with", **dropping), task, full, said)
    [one], [other] = treated.run([0], "run"), plain.run([0], "run")
    assert one.losses == other.losses and far(one, other) < EXACT
    dropped = Variant.of(tmp_path / "dropped", tmp_path / "with", task, full).run([0], "run")
    assert dropped[0].losses != other.losses


def test_scoring_knows_nothing_of_it(tmp_path, encoder_folder):
    """The trained model scores as one that was never mixed, from the weights that are kept."""
    full = {"type": "full"}
    treated = Variant.of(tmp_path, encoder_folder, "classification", full, [{"type": "mixout", "p": 0.9}])
    [came] = treated.run([0], "run")
    fresh = treated.assembled()
    with torch.no_grad():
        for name, value in fresh.model.named_parameters():
            value.copy_(came.weights[name])
    examples = treated.data.held_out["test"].examples
    with torch.no_grad():
        losses = treated.data.task.losses(fresh.model.eval(), treated.data.task.collate(examples))
    assert came.predictions.loss.tolist() == pytest.approx(losses.tolist(), abs=1e-5)


def test_how_a_batch_is_cut_into_parts_changes_nothing(tmp_path, encoder_folder):
    full = {"type": "full"}
    whole = Variant.of(tmp_path, encoder_folder, "classification", full, [{"type": "mixout", "p": 0.5}])
    [one], [other] = whole.run([0], "whole"), whole.like(micro_batch_size=3).run([0], "parts")
    assert one.losses == pytest.approx(other.losses, abs=1e-5)


@pytest.mark.parametrize("strategy", [{"type": "linear", "solver": "steps"}, {"type": "adapter"}])
def test_it_is_refused_where_nothing_pretrained_learns(tmp_path, encoder_folder, strategy):
    said = [{"type": "mixout"}]
    variant = Variant.of(tmp_path, encoder_folder, "classification", strategy, said)
    with pytest.raises(InputError) as error:
        variant.assembled()
    [problem] = error.value.problems
    assert problem.path == "mitigations.0" and "no linear layer learns that has pretrained weights" in problem.found


def test_it_may_stand_beside_l2_sp(tmp_path, encoder_folder):
    said = [{"type": "l2-sp"}, {"type": "mixout"}]
    assert Variant.of(tmp_path, encoder_folder, "classification", {"type": "full"}, said).assembled().count == 1
