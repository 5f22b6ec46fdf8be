"""A stacked module is its R plain ones, in outputs and gradients, whichever of its parameters learn."""

import copy

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from finetune.core.examples import Batch
from finetune.replicas.group import ReplicaGroup
from finetune.replicas.stacked import CannotStack, Embedding, LayerNorm, Linear, Looped, Rows, Stacked, kind_of
from finetune.strategies.base import trained_parameters

REPLICAS, EACH, TOKENS, SIZE, VOCABULARY = 3, 4, 5, 6, 11


class Tokenwise(nn.Module):
    """A module of our own, with a parameter and a buffer."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(SIZE))
        self.register_buffer("shift", torch.arange(SIZE) / 10)

    def forward(self, values):
        return torch.tanh(values * self.slope + self.shift)


MODULES = {
    "linear": (Linear, lambda: nn.Linear(SIZE, 7)),
    "linear without bias": (Linear, lambda: nn.Linear(SIZE, 7, bias=False)),
    "conv1d": (Linear, lambda: Conv1D(7, SIZE)),
    "layer norm": (LayerNorm, lambda: nn.LayerNorm(SIZE, eps=1e-3)),
    "layer norm without bias": (LayerNorm, lambda: nn.LayerNorm(SIZE, bias=False)),
    "rms norm": (Looped, lambda: nn.RMSNorm(SIZE)),
    "llama's norm": (Looped, lambda: LlamaRMSNorm(SIZE)),
    "one of our own": (Looped, Tokenwise),
    "embedding": (Embedding, lambda: nn.Embedding(VOCABULARY, SIZE)),
    "embedding with padding": (Embedding, lambda: nn.Embedding(VOCABULARY, SIZE, padding_idx=2)),
}
every_module = pytest.mark.parametrize(("kind", "make"), MODULES.values(), ids=MODULES)


def plain_ones(make, learn=None):
    """R models of one module, whose frozen parameters are the same and trained ones differ."""
    torch.manual_seed(0)
    models = [nn.Sequential(make()) for _ in range(REPLICAS)]
    for number, model in enumerate(models):
        for (name, parameter), shared in zip(model.named_parameters(), models[0].parameters(), strict=True):
            parameter.requires_grad = learn is None or name.endswith(learn)
            parameter.data = torch.randn(parameter.shape) if parameter.requires_grad or not number else shared.data
    return models


def stacked(models):
    """The models as a group; they stay as they are."""
    weights = [{name: value.detach() for name, value in trained_parameters(model).items()} for model in models]
    return ReplicaGroup.stack(copy.deepcopy(models[0]), weights)


def inputs_for(make, shape=(REPLICAS * EACH, TOKENS, SIZE)):
    generator = torch.Generator().manual_seed(1)
    if isinstance(make(), nn.Embedding):
        return torch.randint(0, VOCABULARY, (REPLICAS * EACH, TOKENS), generator=generator)
    return torch.randn(shape, generator=generator)


def results(forward, parameters, inputs):
    """Output, gradient of the input, gradients of ``parameters``, for a gradient from above that differs by value."""
    leaf = inputs.clone().requires_grad_(inputs.is_floating_point())
    found = forward(leaf)
    (found.float() * torch.linspace(-1, 2, found.numel()).reshape(found.shape)).sum().backward()
    return [found.detach(), *([leaf.grad] if leaf.requires_grad else []), *(own.grad for own in parameters)]


def compare(models, inputs, counts=(EACH,) * REPLICAS):
    """Hold the stack of ``models`` against each of them on its rows."""
    group = stacked(models)
    owners = torch.arange(sum(counts))[:, None].expand(-1, TOKENS)
    with group.on([], Batch({"input_ids": inputs}, owners, owners), counts):
        _compare(group, models, inputs, counts)


def _compare(group, models, inputs, counts):
    own = list(trained_parameters(group.model).values())
    assert own and all(len(parameter) == REPLICAS for parameter in own)
    together = results(group.model, own, inputs)

    def apart(values):
        return torch.cat([model(part) for model, part in zip(models, values.split(counts), strict=True)])

    wanted = results(apart, [], inputs)
    everyone = zip(*(trained_parameters(model).values() for model in models), strict=True)
    wanted += [torch.stack([parameter.grad for parameter in same]) for same in everyone]
    for one, other in zip(together, wanted, strict=True):
        assert one.dtype == other.dtype and torch.allclose(one, other, atol=1e-5, rtol=1e-4)


@every_module
def test_a_stack_is_its_plain_modules(kind, make):
    assert kind_of(make()) is kind
    compare(plain_ones(make), inputs_for(make))


@every_module
@pytest.mark.parametrize("counts", [(6, 1, 5), (0, 12, 0)], ids=str)
def test_replicas_may_have_unequal_numbers_of_rows(kind, make, counts, monkeypatch):
    """Matrices are multiplied in another way then: two ways, one for narrow ones."""
    for narrow in (0, 100):
        monkeypatch.setattr("finetune.replicas.stacked.NARROW", narrow)
        compare(plain_ones(make), inputs_for(make), counts)


@pytest.mark.parametrize("make", [MODULES[name][1] for name in ("linear", "conv1d", "layer norm", "one of our own")])
@pytest.mark.parametrize("shape", [(SIZE,), (2, 3, SIZE)], ids=["a row a text", "heads"])
def test_rows_may_have_any_shape(make, shape):
    compare(plain_ones(make), inputs_for(make, (REPLICAS * EACH, *shape)))


@pytest.mark.parametrize("name", ["linear", "conv1d", "layer norm"])
@pytest.mark.parametrize("learn", ["bias", "weight"])
def test_what_is_frozen_in_a_module_is_shared(name, learn):
    models = plain_ones(MODULES[name][1], learn)
    compare(models, inputs_for(MODULES[name][1]))
    frozen = next(parameter for parameter in models[0].parameters() if not parameter.requires_grad)
    shape = frozen.shape
    group = ReplicaGroup.stack(models[0], [dict(trained_parameters(model)) for model in models])
    kept = [parameter for parameter in group.model.parameters() if not parameter.requires_grad]
    assert [id(parameter) for parameter in kept] == [id(frozen)] and kept[0].shape == shape


def test_rows_of_padding_in_an_embedding_never_learn():
    make = MODULES["embedding with padding"][1]
    group = stacked(plain_ones(make))
    group.model(torch.full((REPLICAS, 2), 2)).sum().backward()
    weight = next(group.model.parameters())
    assert not weight.grad.any()
    group.model(torch.full((REPLICAS, 2), 3)).sum().backward()
    assert (weight.grad[:, 3] == 2).all() and weight.grad.ne(0).sum() == REPLICAS * SIZE


def test_positions_that_are_looked_up_once_are_looked_up_for_each_replica():
    """(1, T) position numbers, as BERT has them, against (rows, T) token numbers."""
    models = plain_ones(MODULES["embedding"][1])
    group = stacked(models)
    positions = torch.arange(TOKENS)[None]
    owners = torch.arange(REPLICAS * EACH)[:, None].expand(-1, TOKENS)
    with group.on([], Batch({}, owners, owners)):
        found = group.model(positions)
    assert found.shape == (REPLICAS * EACH, TOKENS, SIZE)
    wanted = [model[0].weight[:TOKENS].expand(EACH, TOKENS, SIZE) for model in models]
    assert torch.equal(found, torch.cat(wanted))


@every_module
def test_under_autocast_a_stack_rounds_like_its_plain_modules(kind, make):
    models = plain_ones(make)
    with torch.autocast("cpu", torch.bfloat16):
        plain = [model(part) for model, part in zip(models, inputs_for(make).chunk(REPLICAS), strict=True)]
        found = stacked(models).model(inputs_for(make))
    wanted = torch.cat(plain)
    assert found.dtype == wanted.dtype
    assert torch.allclose(found.float(), wanted.float(), atol=0.05, rtol=0.02)


def test_a_gradient_stays_with_its_replica():
    group = stacked(plain_ones(MODULES["linear"][1]))
    losses = group.model(inputs_for(MODULES["linear"][1])).reshape(REPLICAS, -1).square().sum(1)
    losses[1].backward()
    for parameter in group.model.parameters():
        assert not parameter.grad[[0, 2]].any() and parameter.grad[1].any()


# What cannot be stacked says so


def refused(model):
    weights = [{name: value.detach() for name, value in trained_parameters(model).items()}] * 2
    with pytest.raises(CannotStack) as error:
        ReplicaGroup.stack(model, weights)
    return str(error.value)


def test_a_module_with_parameters_beside_other_modules_cannot_be_stacked():
    assert "MultiheadAttention" in refused(nn.Sequential(nn.MultiheadAttention(SIZE, 2)))
    assert "ParameterList" in refused(nn.Sequential(nn.ParameterList([nn.Parameter(torch.ones(2))])))


def test_a_model_with_parameters_of_its_own_cannot_be_stacked():
    assert "slope" in refused(Tokenwise())


def test_rows_that_are_not_the_replicas_cannot_be_passed():
    group = stacked(plain_ones(MODULES["linear"][1]))
    with pytest.raises(CannotStack, match="Linear gets 7 rows"):
        group.model(torch.randn(7, SIZE))


def test_a_stack_takes_over_its_modules_mode():
    for mode in (True, False):
        assert Linear(nn.Linear(2, 2).train(mode), 2, Rows()).training is mode
    assert issubclass(Linear, Stacked) and not list(Linear(nn.Linear(2, 2), 2, Rows()).parameters())
