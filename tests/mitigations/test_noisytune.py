"""NoisyTune: uniform noise in proportion to each parameter's own spread, once, and never on what is drawn afresh."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.mitigations.noisytune import NoisyTune
from finetune.models import ModelOptions, load_base
from tests import tiny
from tests.examples import Example
from tests.replicas.groups import Variant

EXAMPLES = {"noisytune": Example({"intensity": 0.5})}


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def base(request, tmp_path_factory):
    """A base model whose parameters have spreads of their own, as after pretraining."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "encoder":
        save, auto, head = tiny.save_encoder, AutoModelForSequenceClassification, {"num_labels": 3}
    else:
        save, auto, head = tiny.save_decoder, AutoModelForCausalLM, {}
    base = load_base(ModelOptions(source=str(save(folder, hidden_size=64))), auto.__name__, **head)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for number, parameter in enumerate(base.model.parameters()):
            parameter.copy_(1 + (1 + number) * torch.randn(parameter.shape, generator=generator))
    return base


def noise(base, seed=0, **options):
    """What is added to each parameter, what was said to have changed, and the spread of each before."""
    model = base.copy(Streams(3))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    made = NoisyTune(NoisyTune.Options(type="noisytune", **options))
    with Streams(seed).globally("init", 1):
        names = made.prepare(model, set(base.new), "mitigations.0")
    after = {name: value.detach() - before[name] for name, value in model.named_parameters()}
    return after, names, {name: float(value.std(correction=0)) for name, value in before.items()}


@pytest.mark.parametrize("options, intensity", [({}, 0.15), ({"intensity": 1.0}, 1.0)])
def test_noise_is_uniform_and_as_wide_as_the_tensors_own_spread_says(base, options, intensity):
    """U(-l/2, l/2) * std(W): it stays within l/2 spreads, and has a spread of l / sqrt(12) times W's."""
    added, names, spreads = noise(base, **options)
    for name in names:
        relative = added[name] / spreads[name]
        assert float(relative.abs().max()) <= intensity / 2 * (1 + 1e-3), name
        if relative.numel() > 2000:
            assert float(relative.abs().max()) > 0.49 * intensity, name
            assert float(relative.std()) == pytest.approx(intensity / math.sqrt(12), rel=0.05), name
            assert abs(float(relative.mean())) < 0.03 * intensity, name
    assert max(spreads[name] for name in names) > 20 * min(spreads[name] for name in names)


def test_every_pretrained_parameter_and_nothing_of_the_head_changes(base):
    added, names, _ = noise(base)
    assert {name for name, value in added.items() if value.any()} == names == added.keys() - base.new


def test_the_seed_decides(base):
    (one, names, _), (again, _, _), (other, _, _) = noise(base, seed=1), noise(base, seed=1), noise(base, seed=2)
    assert all(torch.equal(one[name], again[name]) for name in names)
    assert not any(torch.equal(one[name], other[name]) for name in names)


def test_what_is_alike_everywhere_stays(base):
    """A spread of nothing makes no noise: norms that were never trained, a lone number."""
    model = torch.nn.Module()
    model.alike, model.lone = torch.nn.Parameter(torch.ones(5)), torch.nn.Parameter(torch.tensor([2.0]))
    assert NoisyTune(NoisyTune.Options(type="noisytune")).prepare(model, set(), "") == {"alike", "lone"}
    assert model.alike.tolist() == [1.0] * 5 and model.lone.tolist() == [2.0]


@pytest.mark.parametrize(
    "strategy", [{"type": "linear", "solver": "steps"}, {"type": "adapter"}, {"type": "partial", "last": 1}]
)
def test_noise_in_frozen_weights_is_refused(tmp_path, encoder_folder, strategy):
    variant = Variant.of(tmp_path, encoder_folder, "classification", strategy, [{"type": "noisytune"}])
    with pytest.raises(InputError, match="changes weights that strategy"):
        variant.assembled()
