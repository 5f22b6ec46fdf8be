"""R4F: R3F, with a head whose last weight has spectral norm 1, in a plain model."""

import pytest
import torch
from torch.nn.functional import linear
from transformers import AutoModelForSequenceClassification

from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.mitigations.r4f import R4F
from finetune.models import ModelOptions, head_parameters, load_base
from tests import tiny
from tests.examples import Example
from tests.mitigations.part import Part, make
from tests.replicas.groups import Variant

EXAMPLES = {"r4f": Example({"eps": 0.05})}

HEAD = "classifier.weight"


def norm(matrix):
    """The largest singular value of a head's weight (outputs, inputs), as a run hands it back."""
    return float(torch.linalg.svdvals(matrix.reshape(3, -1).double())[0])


@pytest.fixture
def part(topics_bench):
    model = topics_bench.model()
    mitigation = make("r4f", eps=0.5)
    assert mitigation.prepare(model, head_parameters(model), "mitigations.0") == set()
    assert norm(model.get_parameter(HEAD).detach()) < 0.9
    return Part(topics_bench, mitigation, model=model)


def test_before_the_first_step_the_head_has_norm_one(part, topics_bench):
    weight = part.model.get_parameter(HEAD).detach()
    assert norm(weight) == pytest.approx(1, abs=1e-6)
    plain = topics_bench.model().get_parameter(HEAD).detach()
    torch.testing.assert_close(weight, plain / norm(plain), atol=1e-6, rtol=1e-5)


def test_the_rest_is_r3f(part, topics_bench):
    same = Part(topics_bench, make("r3f", eps=0.5), model=part.model)
    assert torch.equal(part.losses(), same.losses())
    assert len(part.noises()) == 2


def test_the_gradient_is_that_of_a_spectrally_normalised_weight(part):
    """Of W / norm(W), by torch's own derivative of the norm; whoever looks one step ahead sees the same."""
    weight = part.model.get_parameter(HEAD)
    inputs, wanted = torch.randn(9, 32), torch.randn(9, 3)
    normalised = weight / torch.linalg.matrix_norm(weight, 2)
    (linear(inputs, normalised) * wanted).sum().backward()
    right, weight.grad = weight.grad, None
    (linear(inputs, weight) * wanted).sum().backward()
    assert not torch.allclose(weight.grad, right, rtol=1e-2)
    part.mitigation.gradients()
    torch.testing.assert_close(weight.grad, right, rtol=1e-4, atol=1e-5)


def test_a_step_leaves_the_norm_at_one_and_its_direction(part):
    weight = part.model.get_parameter(HEAD)
    with torch.no_grad():
        weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        moved = weight.clone()
    part.mitigation.stepped(0.1)
    torch.testing.assert_close(weight.detach(), moved / norm(moved), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("strategy", [{"type": "full"}, {"type": "adapter", "rank": 4}])
def test_trained_heads_have_norm_one_alone_and_side_by_side(tmp_path, encoder_folder, strategy):
    """Also in a head that peft wraps."""
    variant = Variant.of(tmp_path, encoder_folder, "classification", strategy, [{"type": "r4f"}], learning_rate=0.03)
    for came in [*variant.run([0], "alone"), *variant.run([0, 1, 2], "together")]:
        [weight] = [value for name, value in came.weights.items() if "classifier" in name and name.endswith("weight")]
        assert norm(weight) == pytest.approx(1, abs=1e-5)


def test_the_last_of_a_heads_weights_is_meant(tmp_path):
    folder = tiny.save_t5(tmp_path / "t5")
    base = load_base(ModelOptions(source=str(folder)), AutoModelForSequenceClassification.__name__, num_labels=3)
    model, mitigation = base.copy(Streams(0)), make("r4f")
    mitigation.prepare(model, head_parameters(model, base.new), "mitigations.0")
    assert mitigation._name == "classification_head.out_proj.weight"


def test_a_task_without_a_head_is_refused(tmp_path, decoder_folder):
    variant = Variant.of(tmp_path, decoder_folder, "chat", {"type": "full"}, [{"type": "r4f"}])
    with pytest.raises(InputError) as error:
        variant.run([0], "run")
    (problem,) = error.value.problems
    assert problem.path == "mitigations.0.type" and "no new head" in problem.found and problem.advice == "use r3f"


def test_relatives_cannot_stand_beside_it():
    assert set(R4F.contradicts) == {"r3f", "smart", "neftune", "preference"}
