"""SMART: the worst change of the embeddings in a small ball, found by ascent, and what it changes in the loss."""

import math

import pytest
import torch

from finetune.mitigations.perturb import input_embeddings, noise_like, symmetric_kl
from tests.examples import Example
from tests.mitigations.part import Part, make

EXAMPLES = {"smart": Example({"sigma": 0.01, "eta": 0.1, "epsilon": 0.05})}

LARGE = {"sigma": 0.1, "eta": 0.3, "epsilon": 0.2}
"""Sizes at which float32 shows every effect."""


def test_without_strength_it_is_cross_entropy_and_one_pass(bench):
    part = Part(bench, make("smart", strength=0.0))
    assert len(part.noises()) == 1
    assert torch.equal(part.losses(), part.plain())


@pytest.mark.parametrize("options", [{}, LARGE, {**LARGE, "steps": 3}, {"epsilon": 0.01, "eta": 5.0, "sigma": 1.0}])
def test_the_change_stays_in_its_ball(bench, options):
    """Whatever the length of a step, and wherever the search starts; by default outside."""
    part = Part(bench, make("smart", **options))
    steps, epsilon = part.mitigation.options.steps, part.mitigation.options.epsilon
    clean, *tried, worst = part.noises()
    assert not clean.any() and len(tried) == steps
    assert float(worst.abs().max()) <= epsilon * (1 + 1e-6) + 1e-8  # which reading it back costs
    assert all(float(each.abs().max()) <= epsilon * (1 + 1e-6) + 1e-8 for each in tried[1:])
    assert float(worst.abs().max()) > 0.9 * epsilon


def test_the_search_starts_from_normal_noise(bench):
    part = Part(bench, make("smart", **LARGE), places=range(12))
    start = part.noises()[1]
    assert float(start.std()) == pytest.approx(0.1, rel=0.03)
    assert abs(float(start.mean())) < 5 * 0.1 / math.sqrt(start.numel())
    assert 3 < float(start.abs().max()) / 0.1 < 4.5


def test_a_step_goes_up_the_slope_divided_by_its_largest_component_in_the_example(topics_bench):
    part = Part(topics_bench, make("smart", **LARGE))
    _, start, worst = part.noises()
    start.requires_grad_()
    embeddings = input_embeddings(part.model)(part.batch.inputs["input_ids"]).detach()
    inputs = {"attention_mask": part.batch.inputs["attention_mask"]}
    apart = symmetric_kl(
        part.model(inputs_embeds=embeddings + start, **inputs).logits.float(),
        part.model(inputs_embeds=embeddings, **inputs).logits.detach(),
    )
    [slope] = torch.autograd.grad(apart.sum(), start)
    steepest = slope.flatten(1).abs().amax(1)[:, None, None]  # one example a row
    assert float(steepest.max()) > 1.5 * float(steepest.min())
    wanted = (start.detach() + 0.3 * slope / steepest).clamp(-0.2, 0.2)
    torch.testing.assert_close(worst[part.real], wanted[part.real], rtol=1e-3, atol=1e-4)


def test_an_examples_change_is_its_own_in_any_company(bench):
    """Packed beside others, or alone: what is largest is so in the example."""
    together = Part(bench, make("smart", **LARGE), places=range(12))
    place = together.in_company()
    alone = Part(bench, make("smart", **LARGE), places=[place])
    found = together.noises()[-1][together.batch.example == place]
    torch.testing.assert_close(alone.noises()[-1][alone.real], found, rtol=1e-3, atol=1e-4)


def test_it_finds_worse_than_noise_of_the_same_size(bench):
    """Three steps more than one, and one more than none."""
    tried = [make("smart", **LARGE, steps=3), make("smart", **LARGE), make("r3f", eps=0.2)]
    parts = [Part(bench, each, places=range(12)) for each in tried]
    three, one, noise = (float((part.losses() - part.plain()).sum().detach()) for part in parts)
    assert three > one > 1.2 * noise > 0


def test_the_loss_has_the_symmetric_divergence_of_each_label(topics_bench):
    part = Part(topics_bench, make("smart", **LARGE, strength=2.0))
    worst = part.noises()[-1]
    embeddings = input_embeddings(part.model)(part.batch.inputs["input_ids"])
    p, q = (
        part.model(inputs_embeds=given, attention_mask=part.batch.inputs["attention_mask"]).logits.softmax(1)
        for given in (embeddings, embeddings + worst)
    )
    wanted = 2 * ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1))
    found = part.losses() - part.plain()
    assert (wanted > 1e-4).all()
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-6)
    weight = input_embeddings(part.model).weight
    [slope], [right] = (torch.autograd.grad(value.sum(), weight) for value in (found, wanted))
    torch.testing.assert_close(slope, right, rtol=1e-2, atol=1e-5)


def test_the_search_leaves_no_gradient_behind(bench):
    """Only the loss does."""
    part = Part(bench, make("smart", **LARGE))
    part.losses()
    assert all(value.grad is None for value in part.model.parameters())


def test_noise_has_the_examples_own_numbers(topics_bench):
    part = Part(topics_bench, make("smart", **LARGE))
    start = part.noises()[1]
    part.training_state.noise = part.masks()
    torch.testing.assert_close(start, 0.1 * noise_like(part.training_state, start, "normal"), atol=1e-6, rtol=0)
