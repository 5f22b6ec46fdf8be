"""R3F: what noise on the embeddings changes is added to the loss, and learnt from all the way down."""

import math

import pytest
import torch

from finetune.mitigations.perturb import input_embeddings, symmetric_kl
from tests.examples import Example
from tests.mitigations.part import Part, make

EXAMPLES = {"r3f": Example({"eps": 0.05})}


def divergences(part, noise):
    """(N,) with their graph: the sum of both Kullback-Leibler divergences between what the model says of the part's
    examples without and with ``noise`` (rows, T, D) on embeddings that it is given from outside."""
    embeddings = input_embeddings(part.model)(part.batch.inputs["input_ids"])
    p, q = (said(part, given).softmax(1) for given in (embeddings, embeddings + noise))
    return (p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)


def said(part, embeddings):
    """The logits (N, C) of a classifier that is given embeddings."""
    return part.model(inputs_embeds=embeddings, attention_mask=part.batch.inputs["attention_mask"]).logits


def test_without_noise_and_dropout_the_divergence_is_zero(bench):
    part = Part(bench, make("r3f", eps=0.0))
    assert len(part.noises()) == 2
    assert torch.equal(part.losses(), part.plain())


def test_without_strength_the_model_runs_once(bench):
    part = Part(bench, make("r3f", strength=0.0, eps=0.5))
    assert [float(noise.abs().max()) for noise in part.noises()] == [0.0]
    assert torch.equal(part.losses(), part.plain())


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_the_noise_is_as_large_as_it_says(bench, kind):
    clean, noised = Part(bench, make("r3f", eps=0.25, noise=kind), places=range(12)).noises()
    assert not clean.any()
    size = float(noised.pow(2).mean().sqrt())
    assert size == pytest.approx(0.25 / math.sqrt(3) if kind == "uniform" else 0.25, rel=0.03)
    largest = float(noised.abs().max())
    assert 0.249 < largest < 0.2501 if kind == "uniform" else 3 < largest / 0.25 < 4.5
    assert abs(float(noised.mean())) < 5 * size / math.sqrt(noised.numel())


@pytest.mark.parametrize("strength", [1.0, 2.5])
def test_the_loss_has_the_symmetric_divergence_of_each_label(topics_bench, strength):
    part = Part(topics_bench, make("r3f", eps=0.5, strength=strength))
    _, noise = part.noises()
    wanted = divergences(part, noise)
    assert (wanted > 1e-4).all()
    torch.testing.assert_close(part.losses() - part.plain(), strength * wanted, rtol=1e-2, atol=1e-6)


def test_gradients_flow_through_both_passes_into_the_embeddings(topics_bench):
    """Public code detaches the embeddings of the noised pass, and so learns from another gradient."""
    part = Part(topics_bench, make("r3f", eps=0.5))
    weight = input_embeddings(part.model).weight
    _, noise = part.noises()

    def slope(value):
        return torch.autograd.grad(value.sum(), weight)[0]

    found, wanted = slope(part.losses() - part.plain()), slope(divergences(part, noise))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    embeddings = input_embeddings(part.model)(part.batch.inputs["input_ids"])
    cut = symmetric_kl(said(part, embeddings), said(part, embeddings.detach() + noise))
    assert float((slope(cut) - wanted).norm()) > 0.1 * float(wanted.norm())
