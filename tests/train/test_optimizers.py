"""Schedule-Free and Prodigy take the steps of their papers, are what they were after a checkpoint, and refuse what they
cannot train; parameters with a rate of their own take steps of their own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.errors import InputError
from finetune.core.hooks import TrainingHook, TrainingHooks
from finetune.mitigations.base import Mitigation
from finetune.strategies.base import Strategy
from finetune.train import checkpoint
from finetune.train.optimizer import (
    averages,
    check_optimizer,
    make_optimizer,
    memory_of,
    moments_of,
    restore_moments,
    set_rate,
    used_rate,
)
from finetune.train.schedules import rate_at
from finetune.train.weights import Weights
from tests.train.workbench import options

SHAPES = {"matrix": (3, 4), "bias": (5,), "scale": ()}
NAMES = ["adamw", "schedule-free", "prodigy"]


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameters(replicas=1, seeds=(0, 1, 2), zero=False):
    """Of a run, or of R side by side, (R, ...)."""
    made = {
        name: [drawn(10 * number + seed, *shape) * (not zero or name != "bias") for seed in seeds[:replicas]]
        for number, (name, shape) in enumerate(SHAPES.items())
    }
    return {name: torch.nn.Parameter(torch.stack(own) if replicas > 1 else own[0]) for name, own in made.items()}


def gradients(step, replicas=1, seeds=(0, 1, 2)):
    return {
        name: torch.stack([drawn(1000 * (step + 1) + 10 * number + seed, *shape) for seed in seeds[:replicas]])
        for number, (name, shape) in enumerate(SHAPES.items())
    }


def train(optimizer, named, chosen, steps, start=0, seeds=(0, 1, 2), replicas=1):
    """Steps with gradients that are the same for the same step and seed."""
    for step in range(start, start + steps):
        for name, value in gradients(step, replicas, seeds).items():
            named[name].grad = (value if replicas > 1 else value[0]).clone()
        set_rate(optimizer, rate_at(step, 20, chosen))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


# Schedule-Free


def the_road_less_scheduled(start, taken, rates, betas, epsilon, decay):
    """Algorithm 1 of Defazio et al. 2024, written with all three sequences: the gradients' point y, and the average
    x."""
    z, x, moment, squares = start.clone(), start.clone(), torch.zeros_like(start), 0.0
    y = start.clone()
    for step, (gradient, rate) in enumerate(zip(taken, rates, strict=True), start=1):
        moment = betas[1] * moment + (1 - betas[1]) * gradient**2
        denominator = (moment / (1 - betas[1] ** step)).sqrt() + epsilon
        z = z - rate * (gradient / denominator + decay * y)
        squares += max(rates[:step]) ** 2
        share = max(rates[:step]) ** 2 / squares
        x = (1 - share) * x + share * z
        y = (1 - betas[0]) * z + betas[0] * x
    return y, x


@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_schedule_free_takes_the_steps_of_its_paper(warmup):
    chosen = options(optimizer="schedule-free", learning_rate=0.02, weight_decay=0.1, warmup=warmup, betas=(0.9, 0.99))
    named = parameters()
    start = {name: value.detach().clone() for name, value in named.items()}
    optimizer = make_optimizer(named, chosen)
    train(optimizer, named, chosen, 12)
    rates = [rate_at(step, 20, chosen) for step in range(12)]
    found = averages(optimizer, named)
    for name, value in named.items():
        taken = [gradients(step)[name][0] for step in range(12)]
        y, x = the_road_less_scheduled(start[name], taken, rates, (0.9, 0.99), 1e-6, 0.1 * (name == "matrix"))
        torch.testing.assert_close(value.detach(), y, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[name], x, rtol=1e-4, atol=1e-6)
        assert float((x - y).abs().max()) > 1e-3, "otherwise it does not matter which are scored"


def test_what_is_scored_is_what_schedule_frees_own_eval_gives_and_training_does_not_notice():
    chosen = options(optimizer="schedule-free", learning_rate=0.02)
    named = parameters()
    optimizer = make_optimizer(named, chosen)
    before = {name: value.detach().clone() for name, value in named.items()}
    assert all(torch.equal(value, before[name]) for name, value in averages(optimizer, named).items()), "at the start"
    train(optimizer, named, chosen, 5)
    before = {name: value.detach().clone() for name, value in named.items()}
    found = averages(optimizer, named)
    assert all(torch.equal(value, before[name]) for name, value in named.items())
    optimizer.eval()
    assert all(torch.equal(value, found[name]) for name, value in named.items())


def test_only_schedule_free_has_other_weights_to_score():
    for name in ("adamw", "prodigy"):
        named = parameters()
        assert averages(make_optimizer(named, options(optimizer=name)), named) is None


# Prodigy


def prodigy(start, taken, rates, betas, epsilon, decay, d0, d_coef, safeguard):
    """Prodigy's Adam form (Mishchenko & Defazio 2024) over several parameters: their values, and the estimates d."""
    weights = {name: value.clone().double() for name, value in start.items()}
    first = {name: torch.zeros_like(value) for name, value in weights.items()}
    second, sums = dict(first), dict(first)
    kept, d, numerator, found = math.sqrt(betas[1]), d0, 0.0, []
    for step, rate in enumerate(rates):
        own = {name: value.double() for name, value in taken[step].items()}
        products = sum(float((own[name] * (start[name] - weights[name])).sum()) for name in own)
        numerator = kept * numerator + d * d * rate * products
        for name, value in own.items():
            first[name] = betas[0] * first[name] + (1 - betas[0]) * d * value
            second[name] = betas[1] * second[name] + (1 - betas[1]) * d * d * value**2
            sums[name] = kept * sums[name] + d * d * (1 if safeguard else rate) * value
        estimate = d_coef * numerator / sum(float(value.abs().sum()) for value in sums.values())
        before, d = d, max(d, estimate)
        for name, value in weights.items():
            shrunk = value * (1 - decay * (name == "matrix") * before * rate)
            weights[name] = shrunk - before * rate * first[name] / (second[name].sqrt() + d * epsilon)
        found.append(d)
    return weights, found


@pytest.mark.parametrize("safeguard", [True, False])
def test_prodigy_takes_the_steps_of_its_paper(safeguard):
    own = {"d0": 1e-3, "d_coef": 2.0, "safeguard_warmup": safeguard}
    chosen = options(optimizer="prodigy", learning_rate=1.0, weight_decay=0.1, warmup=0.3, prodigy=own)
    named = parameters()
    start = {name: value.detach().clone().double() for name, value in named.items()}
    taken = [{name: value[0] + 1 for name, value in gradients(step).items()} for step in range(12)]  # one direction
    optimizer, found = make_optimizer(named, chosen), []
    rates = [rate_at(step, 20, chosen) for step in range(12)]
    for step, rate in enumerate(rates):
        for name, value in taken[step].items():
            named[name].grad = value.clone()
        set_rate(optimizer, rate)
        optimizer.step()
        found.append(optimizer.param_groups[0]["d"])
    weights, estimates = prodigy(start, taken, rates, (0.9, 0.999), 1e-6, 0.1, 1e-3, 2.0, safeguard)
    assert found == pytest.approx(estimates, rel=1e-4) and found[-1] > 3 * 1e-3
    for name, value in named.items():
        torch.testing.assert_close(value.detach().double(), weights[name], rtol=1e-4, atol=1e-6)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1, 1), st.floats(0.01, 1)), min_size=2, max_size=12),
    st.floats(1e-6, 1e-1),
)
def test_prodigys_estimate_never_falls(steps, d0):
    """Whatever the gradients, and also where the rate asked for falls."""
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    optimizer = make_optimizer({"w": weight}, options(optimizer="prodigy", prodigy={"d0": d0}))
    found = [d0]
    for left, right, rate in steps:
        weight.grad = torch.tensor([[left, right]])
        set_rate(optimizer, rate)
        optimizer.step()
        found.append(optimizer.param_groups[0]["d"])
    assert found == sorted(found)


def test_the_rate_that_is_told_is_the_one_found():
    chosen = options(optimizer="prodigy", prodigy={"d0": 0.25})
    named = parameters()
    optimizer = make_optimizer(named, chosen)
    assert used_rate(optimizer, 0.5) == 0.125
    train(optimizer, named, chosen, 3)
    assert used_rate(optimizer, 0.5) == 0.5 * optimizer.param_groups[0]["d"]
    assert used_rate(make_optimizer(parameters(), options()), 0.5) == 0.5


# Checkpoints


def through_a_file(folder, optimizer, named, replicas=1, number=0):
    """An optimizer's memory and one replica's weights, saved and loaded."""
    weights = {name: (value if replicas == 1 else value[number]).detach() for name, value in named.items()}
    tensors = {"optimizer": moments_of(optimizer, number, replicas), "weights": weights}
    checkpoint.save(folder / str(number), 1, {}, tensors)
    _, loaded = checkpoint.load(folder / str(number))
    return loaded["weights"], loaded["optimizer"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 6])
def test_an_optimizer_goes_on_from_a_checkpoint_to_the_bit(tmp_path, name, steps):
    """With a bias of zero, for which Prodigy keeps less."""
    chosen = options(optimizer=name, learning_rate=1.0 if name == "prodigy" else 0.03, prodigy={"d0": 1e-3})
    named, whole = parameters(zero=True), parameters(zero=True)
    optimizer, uninterrupted = make_optimizer(named, chosen), make_optimizer(whole, chosen)
    train(uninterrupted, whole, chosen, 12)
    train(optimizer, named, chosen, steps)
    weights, moments = through_a_file(tmp_path, optimizer, named)
    fresh = {key: torch.nn.Parameter(value) for key, value in weights.items()}
    resumed = make_optimizer(fresh, chosen)
    restore_moments(resumed, [moments])
    train(resumed, fresh, chosen, 12 - steps, start=steps)
    assert all(torch.equal(fresh[key], value) for key, value in whole.items())
    theirs, ours = uninterrupted.state_dict(), resumed.state_dict()
    assert [{**group, "betas": None} for group in ours["param_groups"]] == [
        {**group, "betas": None} for group in theirs["param_groups"]
    ]
    for number, entry in theirs["state"].items():
        assert entry.keys() == ours["state"][number].keys()
        for key, value in entry.items():
            assert torch.equal(torch.as_tensor(ours["state"][number][key]).float(), torch.as_tensor(value).float())


@pytest.mark.parametrize("name", ["adamw", "schedule-free"])
def test_replicas_come_from_and_go_into_optimizers_of_their_own(tmp_path, name):
    chosen = options(optimizer=name, learning_rate=0.03)
    stacked = parameters(3)
    together = make_optimizer(stacked, chosen, 3)
    train(together, stacked, chosen, 4, replicas=3)
    saved = [through_a_file(tmp_path, together, stacked, 3, number) for number in range(3)]
    for number, (weights, moments) in enumerate(saved):
        own = {key: torch.nn.Parameter(value) for key, value in weights.items()}
        alone = make_optimizer(own, chosen)
        restore_moments(alone, [moments])
        train(alone, own, chosen, 4, start=4, seeds=(number,))
        saved[number] = through_a_file(tmp_path / "alone", alone, own, number=0)
    train(together, stacked, chosen, 4, start=4, replicas=3)
    for number, (weights, _) in enumerate(saved):
        for key, value in weights.items():
            torch.testing.assert_close(value, stacked[key].detach()[number], rtol=1e-6, atol=1e-7)
    fresh = {key: torch.nn.Parameter(torch.stack([own[key] for own, _ in saved])) for key in SHAPES}
    again = make_optimizer(fresh, chosen, 3)
    restore_moments(again, [moments for _, moments in saved])
    train(again, fresh, chosen, 4, start=8, replicas=3)
    train(together, stacked, chosen, 4, start=8, replicas=3)
    for key, value in stacked.items():
        torch.testing.assert_close(fresh[key], value, rtol=1e-6, atol=1e-7)


def test_what_an_optimizer_remembers_of_a_replica_that_has_ended_stays():
    """Schedule-Free would go on averaging its weights."""
    chosen = options(optimizer="schedule-free", learning_rate=0.03)
    module = torch.nn.ParameterDict(parameters(3))
    optimizer, weights = make_optimizer(dict(module), chosen, 3), Weights(module, 3)
    train(optimizer, module, chosen, 2, replicas=3)
    before = averages(optimizer, dict(module))
    with weights.unchanged([0, 2], memory_of(optimizer)):
        train(optimizer, module, chosen, 2, start=2, replicas=3)
    after = averages(optimizer, dict(module))
    for name in SHAPES:
        assert torch.equal(after[name][0], before[name][0]) and torch.equal(after[name][2], before[name][2])
        assert not torch.equal(after[name][1], before[name][1])


# Rates of their own


class Rates(TrainingHook):
    """Gives parameters rates of their own."""

    name = "rates"

    def __init__(self, **factors):
        self.factors = factors

    def rate(self, parameter):
        return self.factors.get(parameter, 1.0)


@pytest.mark.parametrize("name", ["adamw", "schedule-free"])
def test_a_factor_of_one_changes_no_bit_and_another_is_the_rate_times_it(name):
    chosen = options(optimizer=name, learning_rate=0.03, weight_decay=0.1)
    plain, ones, slow, slower = parameters(), parameters(), parameters(), parameters()
    train(make_optimizer(plain, chosen), plain, chosen, 6)
    train(make_optimizer(ones, chosen, 1, TrainingHooks([Rates(bias=1.0)])), ones, chosen, 6)
    assert all(torch.equal(ones[key], value) for key, value in plain.items())
    factors = TrainingHooks([Rates(matrix=0.5, bias=0.25), Rates(matrix=0.5)])
    train(make_optimizer(slow, chosen, 1, factors), slow, chosen, 6)
    less = chosen.model_copy(update={"learning_rate": 0.03 / 4})
    train(make_optimizer(slower, less), slower, less, 6)
    assert torch.equal(slow["scale"], plain["scale"])
    for key in ("matrix", "bias"):
        torch.testing.assert_close(slow[key], slower[key])


def refused(chosen, *hooks):
    with pytest.raises(InputError) as caught:
        check_optimizer(chosen.optimizer, hooks, SHAPES)
    [problem] = caught.value.problems
    return problem


def test_prodigy_refuses_rates_of_their_own():
    plain = ("strategy", TrainingHook())
    problem = refused(options(optimizer="prodigy"), plain, ("mitigations.0", Rates(bias=0.5)))
    assert problem.path == "mitigations.0" and "such as bias" in problem.found
    check_optimizer("prodigy", [plain, ("mitigations.0", Rates(bias=1.0))], SHAPES)
    check_optimizer("schedule-free", [plain, ("mitigations.0", Rates(bias=0.5))], SHAPES)


class Averaging(Mitigation):
    name = "averaging"

    def scored(self):
        return None


class Pulling(Strategy):
    name = "pulling"

    def stepped(self, rate):
        pass


@pytest.mark.parametrize("kind, place", [(Averaging, "mitigations.0"), (Pulling, "strategy")])
def test_schedule_free_refuses_what_changes_weights_after_its_steps(kind, place):
    problem = refused(options(optimizer="schedule-free"), (place, kind(None)))
    assert problem.path == place and f"'{kind.name}' changes or averages weights" in problem.found
    check_optimizer("adamw", [(place, kind(None))], SHAPES)
