"""What we read of the inner state of optimizers that others have written is there, and means what we take it for."""

import prodigyopt
import pytest
import schedulefree
import torch

from finetune.train.optimizer import averages, make_optimizer, used_rate
from tests.train.workbench import options


def moved(optimizer, weight, step):
    """By how much a step moves the weight, whose gradient pulls it to one side, as such gradients do at the start."""
    before = weight.detach().clone()
    weight.grad = torch.full_like(weight, 1.0 + 0.1 * step)
    optimizer.step()
    return weight.detach() - before


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_prodigys_d_is_the_factor_of_the_learning_rate_in_its_next_step(rate):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = prodigyopt.Prodigy([weight], lr=rate, d0=1e-3, eps=1e-12)
    factors = []
    for step in range(12):
        factors.append(optimizer.param_groups[0]["d"])
        expected = used_rate(optimizer, rate)
        state_before = optimizer.state[weight].get("step", 0)
        change = moved(optimizer, weight, step)
        state = optimizer.state[weight]
        assert expected == rate * factors[-1] and state["step"] == state_before + 1
        torch.testing.assert_close(change, -expected * state["exp_avg"] / state["exp_avg_sq"].sqrt(), rtol=1e-4, atol=0)
    assert factors[0] == 1e-3 and factors[-1] > 2 * factors[0], "it has found a higher rate"


def test_schedule_frees_weights_are_y_and_its_z_and_its_own_eval_give_x():
    weight, beta = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5])), 0.8
    optimizer = schedulefree.AdamWScheduleFree([weight], lr=0.1, betas=(beta, 0.99))
    assert optimizer.param_groups[0]["train_mode"] is False
    with pytest.raises(Exception, match="not in train mode"):
        moved(optimizer, weight, 0)
    optimizer.train()
    assert optimizer.param_groups[0]["train_mode"] is True and optimizer.param_groups[0]["weight_sum"] == 0
    z, every = weight.detach().clone(), []
    for step in range(5):
        moved(optimizer, weight, step)
        z_before, z = z, optimizer.state[weight]["z"].clone()
        assert bool((z < z_before).all()), "z takes the whole step"
        every.append(z)
    y, x = weight.detach().clone(), torch.stack(every).mean(0)  # at a rate that stays, the average is a plain one
    torch.testing.assert_close(y, (1 - beta) * z + beta * x)
    torch.testing.assert_close(averages(optimizer, {"weight": weight})["weight"], x)
    optimizer.eval()
    torch.testing.assert_close(weight.detach(), x)
    optimizer.train()
    torch.testing.assert_close(weight.detach(), y)


@pytest.mark.parametrize(
    "library, kind, optimizer, lost",
    [
        (prodigyopt, "Prodigy", "prodigy", "d"),
        (schedulefree, "AdamWScheduleFree", "schedule-free", "weight_sum"),
        (schedulefree, "AdamWScheduleFree", "schedule-free", "train_mode"),
    ],
)
def test_a_version_that_keeps_something_else_is_refused(monkeypatch, library, kind, optimizer, lost):
    class Changed(getattr(library, kind)):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            for group in self.param_groups:
                group["renamed"] = group.pop(lost)

    monkeypatch.setattr(library, kind, Changed)
    with pytest.raises(RuntimeError, match=rf"{library.__name__} [0-9.]+ no longer keeps '{lost}'.*constraints"):
        make_optimizer({"weight": torch.nn.Parameter(torch.ones(2, 2))}, options(optimizer=optimizer))


def test_averages_are_not_taken_from_a_state_without_z():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = make_optimizer({"weight": weight}, options(optimizer="schedule-free"))
    assert torch.equal(averages(optimizer, {"weight": weight})["weight"], weight), "before the first step"
    moved(optimizer, weight, 0)
    optimizer.state[weight]["renamed"] = optimizer.state[weight].pop("z")
    with pytest.raises(RuntimeError, match=r"schedulefree [0-9.]+ no longer keeps 'z'"):
        averages(optimizer, {"weight": weight})
