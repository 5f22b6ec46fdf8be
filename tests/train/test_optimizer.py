"""AdamW's first step, its decay, what the recipe sets, and norms of stacked gradients."""

import pytest
import torch

from finetune.train.optimizer import gradient_norms, make_optimizer, scale_gradients, set_rate
from tests.train.workbench import options


def parameter(*shape, gradient=None):
    torch.manual_seed(0)
    made = torch.nn.Parameter(torch.randn(shape))
    made.grad = torch.randn(shape) if gradient is None else gradient
    return made


def test_the_first_step_is_the_rate_times_the_gradients_sign():
    """Only with bias correction, and at any scale of the gradient."""
    gradient = torch.tensor([[1e-3, -5.0], [40.0, -1e3]])
    weights = parameter(2, 2, gradient=gradient)
    before = weights.detach().clone()
    make_optimizer({"w": weights}, options(learning_rate=0.01, weight_decay=0.0, epsilon=1e-12)).step()
    torch.testing.assert_close(weights.detach() - before, -0.01 * gradient.sign(), rtol=1e-4, atol=1e-7)


def test_only_what_has_two_dimensions_or_more_is_decayed():
    matrix, bias, scale = (parameter(*shape) for shape in ((3, 3), (3,), ()))
    for each in (matrix, bias, scale):
        each.grad.zero_()
    before = [each.detach().clone() for each in (matrix, bias, scale)]
    named = {"matrix": matrix, "bias": bias, "scale": scale}
    make_optimizer(named, options(learning_rate=0.1, weight_decay=0.5)).step()
    torch.testing.assert_close(matrix.detach(), before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(bias, before[1]) and torch.equal(scale, before[2])


def test_of_stacked_parameters_each_is_decayed_as_it_would_be_alone():
    groups = make_optimizer({"matrices": parameter(2, 3, 3), "biases": parameter(2, 3)}, options(), replicas=2)
    assert [(len(group["params"][0].shape), group["weight_decay"]) for group in groups.param_groups] == [
        (3, 0.01),
        (2, 0.0),
    ]


def test_the_recipe_sets_betas_and_epsilon():
    optimizer = make_optimizer({"w": parameter(2, 2)}, options(betas=(0.7, 0.8), epsilon=1e-3, weight_decay=0.3))
    [group] = optimizer.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.7, 0.8), 1e-3, 0.3)


def test_the_rate_set_is_the_rate_used():
    weights = parameter(2, 2)
    before = weights.detach().clone()
    optimizer = make_optimizer({"w": weights}, options(learning_rate=1.0, weight_decay=0.0))
    set_rate(optimizer, 0.25)
    optimizer.step()
    assert float((weights.detach() - before).abs().mean()) == pytest.approx(0.25, rel=1e-3)


SHAPES = ((4, 3), (5,), (2, 2, 2))


def stacked_and_separate(replicas):
    """The same parameters with gradients, stacked (R, ...) and as R sets of their own."""
    stacked = [parameter(replicas, *shape) for shape in SHAPES]
    for size, each in enumerate(stacked):
        each.grad *= torch.arange(1, replicas + 1).reshape(-1, *[1] * (each.ndim - 1)) * (size + 1)
    separate = [
        [parameter(*each.shape[1:], gradient=each.grad[r].clone()) for each in stacked] for r in range(replicas)
    ]
    return stacked, separate


@pytest.mark.parametrize("replicas", [1, 3])
def test_norms_of_stacked_gradients_are_those_of_separate_ones(replicas):
    stacked, separate = stacked_and_separate(replicas)
    torch.testing.assert_close(
        gradient_norms(stacked, replicas), torch.cat([gradient_norms(own, 1) for own in separate])
    )
    by_hand = torch.nn.utils.get_total_norm([each.grad for each in separate[-1]])
    torch.testing.assert_close(gradient_norms(stacked, replicas)[-1], by_hand)


def test_stacked_gradients_are_scaled_one_by_one():
    stacked, separate = stacked_and_separate(3)
    scale_gradients(stacked, torch.tensor([0.5, 1.0, 0.0]))
    for number, factor in enumerate([0.5, 1.0, 0.0]):
        scale_gradients(separate[number], torch.tensor([factor]))
        for together, alone in zip(stacked, separate[number], strict=True):
            assert torch.equal(together.grad[number], alone.grad)


def test_parameters_without_a_gradient_do_not_count():
    idle = torch.nn.Parameter(torch.ones(3))
    learning = parameter(1, gradient=torch.tensor([3.0]))
    assert gradient_norms([idle, learning], 1).tolist() == [3.0]
    scale_gradients([idle, learning], torch.tensor([2.0]))
    assert idle.grad is None and learning.grad.tolist() == [6.0]
