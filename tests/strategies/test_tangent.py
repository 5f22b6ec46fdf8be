"""The tangent model: the plain one where it starts, with the same slope there, and a straight line from there on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from finetune.core.examples import Batch
from finetune.core.randomness import Streams
from finetune.models import ModelOptions, load_base
from finetune.strategies.base import set_training_mode, trained_parameters
from finetune.strategies.tangent import ORIGIN, linearise, own_origin
from finetune.tasks.causal.loss_paths import loss_path_of, losses_of
from tests.strategies.conftest import BUILDS

EXACT = 2e-6
"""Float32, logits of size 1 or less."""
LINEARISED = ["bert", "llama", "llama-classifier", "gpt2", "t5-classifier"]
IDS = torch.tensor([[9, 17, 33, 70, 2], [12, 55, 8, 2, 0]])
INPUTS = {"input_ids": IDS, "attention_mask": (IDS > 0).long()}


@pytest.fixture
def made(bases):
    """A plain model and its tangent model, both in evaluation mode."""

    def make(build):
        plain, tangent = (bases(build).base.copy(Streams(0)).eval() for _ in range(2))
        linearise(tangent, set())
        return plain, tangent

    return make


def logits(model):
    """What a model makes of two texts, one of them padded."""
    with torch.no_grad():
        return model(**INPUTS).logits


def directions(model, seed, size=0.02):
    """A change of every weight, at random."""
    generator = torch.Generator().manual_seed(seed)
    return {name: size * torch.randn(value.shape, generator=generator) for name, value in model.named_parameters()}


def moved(model, start, *changes):
    """What the model makes of the texts at ``start`` plus (factor, direction) each."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(start[name] + sum(factor * direction[name] for factor, direction in changes))
    return logits(model)


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("build", LINEARISED)
def test_it_is_exact_at_the_start(made, build):
    plain, tangent = made(build)
    wanted = logits(plain)
    assert wanted.abs().max() > 100 * EXACT
    torch.testing.assert_close(logits(tangent), wanted, rtol=0, atol=EXACT)


@pytest.mark.parametrize("build", LINEARISED)
def test_its_gradient_at_the_start_is_the_plain_models(made, build):
    found = []
    for model in made(build):
        model(**INPUTS).logits.logsumexp(-1).sum().backward()
        found.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    plain, tangent = found
    assert sum(float(value.norm()) for value in plain.values()) > 1
    for name, value in plain.items():
        torch.testing.assert_close(tangent[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", LINEARISED)
def test_it_moves_along_the_plain_models_derivative(made, build):
    plain, tangent = made(build)
    start, change = weights(plain), directions(plain, 1)
    step = moved(tangent, start, (1, change)) - logits(plain)
    plain.double()  # float32 leaves little of a small difference
    there, back = (moved(plain, start, (sign * 0.003, change)) for sign in (1, -1))
    slope = (there - back) / 0.006
    assert step.abs().max() > 0.01
    assert (step - slope).norm() < 2e-3 * step.norm()


@pytest.mark.parametrize("build", LINEARISED)
def test_second_differences_vanish(made, build):
    plain, tangent = made(build)
    start, change = weights(plain), directions(plain, 2)

    def second(model):
        at = [moved(model, start, (factor, change)) for factor in (0, 1, 2)]
        return float((at[2] - 2 * at[1] + at[0]).norm() / (at[1] - at[0]).norm())

    assert second(plain) > 1e-2
    assert second(tangent) < 1e-4


@given(seeds=st.tuples(st.integers(0, 1000), st.integers(1001, 2000)), share=st.floats(-1, 2))
@settings(max_examples=15)
def test_it_is_affine_in_the_weights(one_tangent, seeds, share):
    """What it makes of weights between (or beyond) two others lies as far between what it makes of those."""
    tangent, start = one_tangent
    one, other = (directions(tangent, seed) for seed in seeds)
    between = moved(tangent, start, (share, one), (1 - share, other))
    ends = moved(tangent, start, (1, one)), moved(tangent, start, (1, other))
    torch.testing.assert_close(between, share * ends[0] + (1 - share) * ends[1], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def one_tangent(encoder_folder):
    base = load_base(ModelOptions(source=str(encoder_folder)), BUILDS["bert"][1], num_labels=3)
    tangent = base.copy(Streams(0))
    linearise(tangent, set())
    return tangent, weights(tangent)


def test_there_is_no_dropout_in_it_in_training_either(made):
    _, tangent = made("bert")
    assert tangent.config.hidden_dropout_prob > 0
    evaluated, before = logits(tangent), torch.get_rng_state()
    tangent.train()
    set_training_mode(tangent)
    assert torch.equal(logits(tangent), evaluated) and torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in tangent.modules())


def test_where_it_starts_stands_still_and_is_no_parameter(made):
    plain, tangent = made("llama")
    for value in tangent.parameters():
        value.data += 1
    assert [name for name, _ in tangent.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert set(trained_parameters(tangent)) == set(weights(plain))
    for name, value in plain.named_parameters():
        assert torch.equal(tangent.get_buffer(f"{name}{ORIGIN}"), value)


def test_only_where_its_own_weights_start_counts_as_its_state(bases):
    tangent = bases("bert").base.copy(Streams(0))
    linearise(tangent, {"classifier.weight"})
    assert set(own_origin(tangent)) == {f"classifier.weight{ORIGIN}"}


def test_losses_of_labels_are_those_of_its_logits_wherever_they_are_computed(made, shake):
    """An output layer's weight alone does not say what a tangent model makes of hidden states."""
    plain, tangent = made("llama")
    assert loss_path_of(plain, range(5, 21), 1).head == "chunks"
    assert loss_path_of(tangent, range(5, 21), 1).head == "labels" and loss_path_of(tangent, range(5, 21), 1).packed
    shake(tangent)
    batch = Batch(INPUTS, IDS.masked_fill(IDS == 0, -100), torch.tensor([[0] * 5, [1] * 4 + [-1]]))
    with torch.no_grad():
        found, wanted, wrong = (losses_of(tangent, batch, head) for head in ("labels", "everywhere", "chunks"))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(wrong, wanted, rtol=1e-2)


def test_it_generates_what_its_logits_say(made, shake):
    """Without a cache, whose keys and values would be without their derivatives."""
    plain, tangent = made("llama")
    shake(tangent)
    prompt = {"input_ids": IDS[:1], "attention_mask": torch.ones_like(IDS[:1])}
    greedy = GenerationConfig(do_sample=False, max_new_tokens=6, min_new_tokens=6, use_cache=True)
    generated = tangent.generate(**prompt, generation_config=greedy)
    ids = IDS[:1]
    with torch.no_grad():
        for _ in range(6):
            scores = tangent(input_ids=ids).logits[:, -1]
            scores[:, tangent.config.eos_token_id] = -torch.inf
            ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], 1)
    assert torch.equal(generated, ids)
    assert not torch.equal(generated, plain.generate(**prompt, generation_config=greedy))
    assert greedy.use_cache
