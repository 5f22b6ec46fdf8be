"""L2-SP: the gradient of half the squared distance from the pretrained weights, in the place of AdamW's decay."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.errors import InputError
from finetune.core.hooks import TrainingHooks
from finetune.mitigations.l2sp import L2SP
from finetune.train.optimizer import make_optimizer
from finetune.train.options import TrainOptions
from tests.examples import Example
from tests.mitigations.steps import begun, training_state
from tests.replicas.groups import Variant

EXAMPLES = {"l2-sp": Example({"strength": 0.1})}

FULL = {"type": "full"}


def parts(replicas=1):
    """A pretrained matrix and bias, and those of a head; stacked where there are replicas."""
    torch.manual_seed(0)
    shapes = {"base.weight": (4, 3), "base.bias": (4,), "head.weight": (2, 4), "head.bias": (2,)}
    return {name: torch.randn(*((replicas,) if replicas > 1 else ()), *shape) for name, shape in shapes.items()}


def pulled(training, mitigation):
    """Gradients where the loss has none of its own."""
    for value in training.parameters.values():
        value.grad = torch.zeros_like(value)
    mitigation.gradients()
    return {name: value.grad for name, value in training.parameters.items()}


@pytest.mark.parametrize("replicas", [1, 3])
def test_it_is_the_gradient_of_the_papers_penalty(replicas):
    training = training_state(parts(replicas), range(replicas), fresh={"head.weight", "head.bias"})
    mitigation = begun(L2SP, training, strength=0.3, beta=0.7)
    start = training.parameters["base.weight"].detach().clone()
    with torch.no_grad():
        for value in training.parameters.values():
            value += torch.randn(value.shape)
    own, head = training.parameters["base.weight"], training.parameters["head.weight"]
    penalty = 0.3 / 2 * (own - start).square().sum() + 0.7 / 2 * head.square().sum()
    wanted = dict(zip(("base.weight", "head.weight"), torch.autograd.grad(penalty, [own, head]), strict=True))
    found = pulled(training, mitigation)
    assert all(torch.allclose(found[name], value) for name, value in wanted.items())
    assert not found["base.bias"].any() and not found["head.bias"].any(), "biases are free"


@given(strength=st.floats(0, 5), rate=st.floats(0.01, 0.15), steps=st.integers(1, 30))
def test_without_a_gradient_it_decays_to_the_pretrained_weights(strength, rate, steps):
    """By (1 - rate * strength) a step, under plain descent."""
    training = training_state(parts())
    mitigation = begun(L2SP, training, strength=strength)
    weight = training.parameters["base.weight"]
    start, moved = weight.detach().clone(), torch.randn(weight.shape)
    with torch.no_grad():
        weight += moved
        for _ in range(steps):
            weight -= rate * pulled(training, mitigation)["base.weight"]
    assert torch.allclose(weight - start, moved * (1 - rate * strength) ** steps, atol=1e-5)


def test_under_adamw_too():
    """At a rate that falls to zero it arrives, whatever the strength: AdamW rescales it."""
    training = training_state(parts(), fresh={"head.weight", "head.bias"})
    mitigation = begun(L2SP, training)
    start = training.parameters["base.weight"].detach().clone()
    bias = training.parameters["base.bias"].detach().clone()
    with torch.no_grad():
        training.parameters["base.weight"].add_(0.5)
    optimizer = make_optimizer(training.parameters, TrainOptions(), hooks=TrainingHooks([mitigation]))
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / 400)
        pulled(training, mitigation)
        optimizer.step()
    ended = {name: value.detach() for name, value in training.parameters.items()}
    assert float((ended["base.weight"] - start).abs().max()) < 1e-4
    assert float(ended["head.weight"].abs().max()) < 1e-2
    assert torch.equal(ended["base.bias"], bias)


def test_adamws_own_decay_is_off():
    training = training_state(parts())
    hooks = TrainingHooks([begun(L2SP, training)])
    groups = make_optimizer(training.parameters, TrainOptions(), hooks=hooks).param_groups
    assert {group["weight_decay"] for group in groups} == {0.0}
    assert 0.01 in {group["weight_decay"] for group in make_optimizer(training.parameters, TrainOptions()).param_groups}


def test_what_gets_no_gradient_is_not_pulled():
    training = training_state(parts())
    mitigation = begun(L2SP, training)
    mitigation.gradients()
    assert all(value.grad is None for value in training.parameters.values())


def test_of_strength_zero_it_is_training_without_decay(tmp_path, encoder_folder):
    said = [{"type": "l2-sp", "strength": 0.0, "beta": 0.0}]
    nothing = Variant.of(tmp_path / "nothing", encoder_folder, "classification", FULL, said)
    plain = Variant.of(tmp_path / "plain", encoder_folder, "classification", FULL, weight_decay=0.0)
    [one], [other] = nothing.run([0], "run"), plain.run([0], "run")
    assert one.losses == other.losses


def test_stronger_stays_nearer(tmp_path, encoder_folder):
    def distance(strength):
        said = [{"type": "l2-sp", "strength": strength}]
        variant = Variant.of(tmp_path / str(strength), encoder_folder, "classification", FULL, said, max_steps=20)
        [came] = variant.run([0], "run")
        start = {name: value.detach() for name, value in variant.assembled().model.named_parameters()}
        held = [name for name, value in start.items() if value.ndim > 1 and not name.startswith("classifier")]
        gaps = [came.weights[name] - start[name] for name in held]
        return float(torch.stack([gap.norm() for gap in gaps]).norm())

    weak, middling, strong = map(distance, (0.0, 0.1, 10.0))
    assert strong < middling < weak and strong < weak / 2


@pytest.mark.parametrize(
    "strategy",
    [{"type": "linear", "solver": "steps"}, {"type": "adapter"}, {"type": "partial", "patterns": ["*.bias"]}],
)
def test_it_is_refused_where_no_pretrained_matrix_learns(tmp_path, encoder_folder, strategy):
    variant = Variant.of(tmp_path, encoder_folder, "classification", strategy, [{"type": "l2-sp"}])
    with pytest.raises(InputError) as error:
        variant.assembled()
    [problem] = error.value.problems
    assert problem.path == "mitigations.0" and "no matrix learns that has a pretrained value" in problem.found
