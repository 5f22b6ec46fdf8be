"""Label smoothing: the loss of softened targets, to the formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from finetune.core.examples import Outputs
from tests.examples import Example
from tests.mitigations.part import Part, make

EXAMPLES = {"label-smoothing": Example()}


def outputs(labels, classes, seed):
    """Random ones of ``labels`` labels, shared out over three examples."""
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(labels, classes, generator=generator)
    targets = torch.randint(classes, (labels,), generator=generator)
    return Outputs(logits, targets, torch.arange(labels) % 3, 3)


def never():
    raise AssertionError("one pass is enough")


@given(st.integers(3, 20), st.integers(2, 50), st.floats(0, 0.99), st.integers(0, 99))
def test_the_loss_is_that_of_softened_targets(labels, classes, epsilon, seed):
    made = outputs(labels, classes, seed)
    found = make("label-smoothing", epsilon=epsilon).losses(made.losses(), made, never)
    soft = (1 - epsilon) * torch.eye(classes)[made.targets] + epsilon / classes
    wanted = made.by_example(-(soft * made.logits.log_softmax(1)).sum(1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    by_torch = cross_entropy(made.logits, made.targets, reduction="none", label_smoothing=epsilon)
    torch.testing.assert_close(found, made.by_example(by_torch), rtol=1e-4, atol=1e-4)


def test_without_epsilon_it_is_cross_entropy(bench):
    part = Part(bench, make("label-smoothing", epsilon=0.0))
    assert torch.equal(part.losses(), part.plain())


def test_its_slope_is_that_of_softened_targets(bench):
    part = Part(bench, make("label-smoothing", epsilon=0.2))
    part.losses().sum().backward()
    found = {name: value.grad.clone() for name, value in part.model.named_parameters() if value.grad is not None}
    part.model.zero_grad()
    made = part.task.outputs(part.model, part.batch)
    cross_entropy(made.logits, made.targets, reduction="sum", label_smoothing=0.2).backward()
    for name, value in found.items():
        torch.testing.assert_close(value, part.model.get_parameter(name).grad, rtol=1e-3, atol=1e-5)


def test_what_others_add_to_the_loss_is_left_as_it_is():
    """In whatever order the recipe names them."""
    made, smoothing, penalty = outputs(9, 4, 0), make("label-smoothing", epsilon=0.3), torch.tensor([1.0, 20.0, 300.0])
    after = smoothing.losses(made.losses() + penalty, made, never)
    torch.testing.assert_close(after, smoothing.losses(made.losses(), made, never) + penalty)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0])
def test_an_impossible_share_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        make("label-smoothing", epsilon=epsilon)
