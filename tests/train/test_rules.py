"""Our own rules take the steps of their papers, as other implementations do; for runs side by side as for each
alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim._muon import _zeropower_via_newtonschulz

from finetune.core.compute import ComputeOptions
from finetune.core.randomness import Streams
from finetune.train import checkpoint, rule_optimizer
from finetune.train.optimizer import make_optimizer, moments_of, restore_moments, set_rate
from finetune.train.rule_optimizer import RuleOptimizer
from finetune.train.rules import OF_ADAM, RULES, orthogonal
from finetune.train.storage import BLOCK, FEWEST, code_book, decode, encode, round_at_random
from tests.train.workbench import options

SHAPES = {"block.0.matrix": (70, 64), "block.0.bias": (5,), "embedding": (9, 4)}
BLOCKS = ["block.0"]
STORED = [
    ComputeOptions(weights="bfloat16", rounding=rounding, states=states)
    for rounding in ("stochastic", "compensated", "nearest")
    for states in ("float32", "bfloat16", "8bit")
]


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def start(seed):
    return {name: drawn(number + 10 * seed, *shape) for number, (name, shape) in enumerate(SHAPES.items())}


def slope(step, seed):
    return {name: drawn(1000 * step + number + 10 * seed, *s) for number, (name, s) in enumerate(SHAPES.items())}


class Training:
    """Steps of runs side by side, under these seeds."""

    def __init__(self, optimizer, seeds=(0,), compute=None, **changes):
        self.seeds, self.one = seeds, len(seeds) == 1
        self.options = options(optimizer=optimizer, learning_rate=0.01, weight_decay=0.1, **changes)
        compute = compute or ComputeOptions()
        dtype = torch.bfloat16 if compute.weights == "bfloat16" else torch.float32
        every = [start(seed) for seed in seeds]
        self.named = {
            name: torch.nn.Parameter(
                self.stacked([own[name] for own in every]).to(dtype if len(shape) > 1 else torch.float32)
            )
            for name, shape in SHAPES.items()
        }
        about = (len(seeds), None, compute, [Streams(seed) for seed in seeds], BLOCKS)
        self.optimizer = make_optimizer(self.named, self.options, *about)

    def stacked(self, values):
        return values[0].clone() if self.one else torch.stack(values)

    def take(self, steps, begin=0):
        for step in range(begin, begin + steps):
            every = [slope(step, seed) for seed in self.seeds]
            for name, parameter in self.named.items():
                parameter.grad = self.stacked([own[name] for own in every]).to(parameter.dtype)
            set_rate(self.optimizer, 0.01 / (step + 1))
            self.optimizer.step()
        return self

    def of(self, number):
        return {name: (value if self.one else value[number]).detach() for name, value in self.named.items()}


def test_adamw_is_torchs_own():
    ours = Training("adamw", compute=ComputeOptions(states="bfloat16"))  # which small parameters do not have
    assert isinstance(ours.optimizer, RuleOptimizer)
    theirs = Training("adamw")
    assert isinstance(theirs.optimizer, torch.optim.AdamW)
    ours.take(10)
    for name, value in theirs.take(10).of(0).items():
        tolerance = {"rtol": 0.02, "atol": 2e-4} if value.numel() >= FEWEST else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(ours.of(0)[name], value, **tolerance)


@pytest.mark.parametrize("states", ["float32", "bfloat16", "8bit"])
@pytest.mark.parametrize("name", RULES)
def test_what_is_remembered_elsewhere_is_the_same(name, states):
    """In every bit, for one run and for two, also when training goes on from what was saved."""
    for seeds in ([0], [0, 1]):
        ours, theirs = (
            Training(name, seeds, ComputeOptions(states=states, offload=offload, weights="bfloat16"))
            for offload in (True, False)
        )
        ours.take(3)
        again = Training(name, seeds, ComputeOptions(states=states, offload=True, weights="bfloat16"))
        for own, value in ours.named.items():
            again.named[own].data.copy_(value.data)
        again.optimizer.load_state_dict(ours.optimizer.state_dict())
        again.take(3, begin=3)
        theirs.take(6)
        for number in range(len(seeds)):
            assert all(torch.equal(value, theirs.of(number)[own]) for own, value in again.of(number).items())
        places = {value.device.type for state in again.optimizer.state.values() for value in state.values()}
        assert places == {"cpu"}


def test_adafactor_is_that_of_transformers():
    from transformers.optimization import Adafactor

    ours = Training("adafactor").take(8)
    named = {name: torch.nn.Parameter(value) for name, value in start(0).items()}
    matrices, biases = ([value for value in named.values() if (value.ndim > 1) is own] for own in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    theirs = Adafactor(groups, lr=0.01, scale_parameter=False, relative_step=False)
    for step in range(8):
        for name, value in slope(step, 0).items():
            named[name].grad = value
        for group in theirs.param_groups:
            group["lr"] = 0.01 / (step + 1)
        theirs.step()
    for name, value in named.items():
        torch.testing.assert_close(ours.of(0)[name], value.detach(), rtol=1e-4, atol=1e-6)


def test_muon_is_torchs_own_for_matrices_of_blocks_and_adamw_for_the_rest():
    ours, adamw = Training("muon").take(6), Training("adamw").take(6)
    matrix = torch.nn.Parameter(start(0)["block.0.matrix"])
    theirs = torch.optim.Muon([matrix], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for step in range(6):
        matrix.grad = slope(step, 0)["block.0.matrix"]
        theirs.param_groups[0]["lr"] = 0.01 / (step + 1)
        theirs.step()
    # theirs iterates in bfloat16
    torch.testing.assert_close(ours.of(0)["block.0.matrix"], matrix.detach(), rtol=0.02, atol=5e-4)
    assert float((ours.of(0)["block.0.matrix"] - adamw.of(0)["block.0.matrix"]).abs().max()) > 1e-3
    for name in ("block.0.bias", "embedding"):
        torch.testing.assert_close(ours.of(0)[name], adamw.of(0)[name], rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(2, 24), st.integers(2, 24), st.integers(0, 99))
def test_a_step_of_muon_is_nearly_orthogonal(runs, rows, columns, seed):
    matrices = drawn(seed, runs, rows, columns)
    found = orthogonal(matrices)
    for own, matrix in zip(found, matrices, strict=True):
        alone = _zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7).float()
        assert float((own - alone).abs().max()) < 0.05
        singular = torch.linalg.svdvals(matrix) / torch.linalg.matrix_norm(matrix)
        assert torch.linalg.svdvals(own)[singular > 0.05].min() > 0.5 and torch.linalg.svdvals(own).max() < 1.3


def test_lion_steps_by_signs_as_its_paper_says():
    ours = Training("lion")
    assert ours.options.betas == (0.9, 0.99)
    mean = {name: torch.zeros_like(value) for name, value in start(0).items()}
    weights = start(0)
    for step in range(5):
        for name, gradient in slope(step, 0).items():
            direction = torch.sign(0.9 * mean[name] + 0.1 * gradient)
            decay = 0.1 if weights[name].ndim > 1 else 0.0
            weights[name] = weights[name] - 0.01 / (step + 1) * (direction + decay * weights[name])
            mean[name] = 0.99 * mean[name] + 0.01 * gradient
    for name, value in ours.take(5).of(0).items():
        torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("compute", [ComputeOptions(), *STORED])
@pytest.mark.parametrize("optimizer", RULES)
def test_runs_side_by_side_take_the_steps_that_each_takes_alone(optimizer, compute):
    together = Training(optimizer, (3, 5), compute).take(4)
    for number, seed in enumerate((3, 5)):
        alone = Training(optimizer, (seed,), compute).take(4)
        for name, value in together.of(number).items():
            if optimizer == "muon" or not compute.compact:  # products in another order, or torch's own kernel
                torch.testing.assert_close(value, alone.of(0)[name], rtol=1e-2, atol=1e-3)
            else:
                assert torch.equal(value, alone.of(0)[name]), name


@pytest.mark.parametrize("compute", [ComputeOptions(), *STORED])
@pytest.mark.parametrize("optimizer", RULES)
def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(optimizer, compute, tmp_path):
    whole = Training(optimizer, (3, 5), compute).take(6)
    first = Training(optimizer, (3, 5), compute).take(3)
    for number in range(2):
        checkpoint.save(tmp_path / str(number), 3, {}, moments_of(first.optimizer, number, 2))
    read = [checkpoint.load(tmp_path / str(number))[1] for number in range(2)]
    second = Training(optimizer, (3, 5), compute)
    with torch.no_grad():
        for name, value in first.named.items():
            second.named[name].copy_(value)
    restore_moments(second.optimizer, read)
    second.take(3, begin=3)
    for name, value in whole.named.items():
        assert torch.equal(value, second.named[name]), name


@pytest.mark.parametrize("optimizer", RULES)
def test_a_parameter_may_be_stepped_part_by_part(optimizer, monkeypatch):
    compute = ComputeOptions(weights="bfloat16", rounding="compensated", states="8bit")
    whole = Training(optimizer, (3, 5), compute).take(3)
    monkeypatch.setattr(rule_optimizer, "PART", 2 * BLOCK)
    parts = Training(optimizer, (3, 5), compute).take(3)
    for name, value in whole.named.items():
        assert torch.equal(value, parts.named[name]), name


def test_states_take_the_memory_that_they_say():
    def size(states):
        training = Training("adamw", compute=ComputeOptions(weights="bfloat16", states=states)).take(1)
        state = training.optimizer.state[training.named["block.0.matrix"]]
        return sum(value.nbytes for name, value in state.items() if name != "step") / 2 / (70 * 64)

    assert (size("float32"), size("bfloat16")) == (4, 2)
    assert size("8bit") == pytest.approx(1 + 4 / BLOCK, rel=0.01)


# Rounding


def test_steps_too_small_for_bfloat16_arrive_by_chance_or_compensation_and_not_to_the_nearest():
    def far(rounding):
        weight = torch.nn.Parameter(torch.ones(80, 80, dtype=torch.bfloat16))
        named, compute = {"w": weight}, ComputeOptions(weights="bfloat16", rounding=rounding)
        optimizer = make_optimizer(named, options(learning_rate=1e-4, weight_decay=0.0), compute=compute)
        for _ in range(50):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        return float(weight.detach().float().mean())

    assert far("nearest") == 1.0
    assert far("compensated") == pytest.approx(1 - 50e-4, abs=4e-3)
    assert far("stochastic") == pytest.approx(1 - 50e-4, abs=4e-4)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e30, 1e30, allow_nan=False), st.integers(0, 99))
def test_random_rounding_gives_one_of_the_two_neighbours_and_the_value_on_average(value, seed):
    values = torch.full((1, 20_000), value)
    generator = torch.Generator().manual_seed(seed)
    found = round_at_random(
        values, lambda shape: torch.randint(0, 1 << 16, shape, dtype=torch.int32, generator=generator)
    )
    assert len(found.unique()) <= 2
    exact = values[0, 0].double()
    spread = max(abs(float(exact)) / 128, 1e-38)
    assert abs(float(found.double().mean() - exact)) < 5 * spread / 20_000**0.5
    assert ((found.double() - exact).abs() <= spread).all()


def test_random_rounding_leaves_what_is_no_number_alone():
    values = torch.tensor([[float("inf"), -float("inf"), float("nan"), 0.0]])
    found = round_at_random(values, lambda shape: torch.full(shape, 65535, dtype=torch.int32))
    assert found[0, 0] == float("inf") and found[0, 1] == -float("inf") and found[0, 2].isnan() and found[0, 3] == 0


# Eight bits


@pytest.mark.parametrize("signed", [True, False])
def test_there_are_as_many_codes_as_8_bits_have(signed):
    book = code_book(signed)
    assert len(book) == 256 == len(set(book)) and list(book) == sorted(book)
    assert book[-1] == 1.0 and 0.0 in book and (book[0] < -0.9) is signed


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 700), st.floats(-6, 6), st.booleans(), st.integers(0, 99))
def test_8_bits_are_the_nearest_that_there_are_and_of_each_run_alone(runs, size, power, signed, seed):
    values = drawn(seed, runs, size) * 10**power
    values = values if signed else values.square()
    codes, scales = encode(values, signed)
    assert codes.dtype == torch.uint8 and codes.shape == values.shape and scales.shape == (runs, -(-size // BLOCK))
    found = decode(codes, scales, signed)
    largest = scales.repeat_interleave(BLOCK, 1)[:, :size, None]
    nearest = (torch.tensor(code_book(signed)) * largest - values[..., None]).abs().amin(-1)
    # A number is looked up by its first 18 bits, whose last is worth a 500th of it.
    assert ((found - values).abs() <= nearest + values.abs() / 500 + largest[..., 0] * 1e-6).all()
    assert torch.equal(found[:1], decode(*encode(values[:1], signed), signed))


def test_zeros_stay_zeros_in_8_bits():
    codes, scales = encode(torch.zeros(2, 300), False)
    assert torch.equal(decode(codes, scales, False), torch.zeros(2, 300))


def test_the_size_of_muons_steps_is_adams():
    weights = torch.zeros(1, 48, 32)
    new, _ = RULES["muon"](weights, drawn(0, 1, 48, 32), {}, 1, {"lr": 1.0, "betas": (0.95, 0.95), "weight_decay": 0.0})
    assert float(new.square().mean().sqrt()) == pytest.approx(OF_ADAM, rel=0.2)
