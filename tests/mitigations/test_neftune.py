"""NEFTune: noise of the right size on the input embeddings, in training only."""

import math

import pytest
import torch

from tests.examples import Example
from tests.mitigations.part import Part, make
from tests.replicas.groups import Variant

EXAMPLES = {"neftune": Example({"alpha": 0.5})}


@pytest.fixture
def part(bench):
    return Part(bench, make("neftune"))


def bounds(part, alpha=5.0):
    """(rows, T, 1) the largest that the noise may be, from each example's own tokens, counted one by one."""
    example = part.batch.example
    lengths = [int((example == number).sum()) for number in range(len(part.places))]
    assert len(set(lengths)) > 1 and not (example[:, :1] == example).all(), "examples differ in length, and are padded"
    tokens = torch.tensor(lengths)[example.clamp(min=0)]
    return (alpha / (tokens * 32).sqrt())[..., None]


def test_the_noise_is_uniform_and_as_large_as_the_examples_own_tokens_say(part):
    [noise] = part.noises()
    share = (noise / bounds(part))[part.real]
    assert 0.99 < float(share.abs().max()) < 1 + 1e-4
    assert abs(float(share.mean())) < 4 / math.sqrt(3 * share.numel())
    assert float(share.pow(2).mean()) == pytest.approx(1 / 3, rel=0.05)


def test_its_length_is_alpha_over_the_root_of_three_for_short_and_long_texts(part):
    noise, example = part.noises()[0], part.batch.example
    for number in range(len(part.places)):
        assert float(noise[example == number].norm()) == pytest.approx(5 / math.sqrt(3), rel=0.15)


def test_packing_and_the_company_of_other_examples_change_no_noise(chat_bench):
    together = Part(chat_bench, make("neftune"), places=range(12))
    assert len(together.batch.example) < 12, "examples are packed"
    place = together.in_company()
    packed = together.noises()[0][together.batch.example == place]
    for packing, places in ((True, [place]), (False, [13, place, 14])):
        other = Part(chat_bench, make("neftune"), places=places, packed=packing)
        own = other.noises()[0][other.batch.example == places.index(place)]
        torch.testing.assert_close(own, packed, atol=1e-6, rtol=0)


def test_examples_tokens_and_features_have_noise_of_their_own(part):
    noise = (part.noises()[0] / bounds(part))[part.real]
    assert noise.flatten().unique().numel() > 0.9 * noise.numel()
    for values in (noise, noise.T):  # of neighbouring tokens, and of neighbouring features
        together = torch.corrcoef(torch.stack([values[:-1].flatten(), values[1:].flatten()]))[0, 1]
        assert abs(float(together)) < 5 / math.sqrt(noise.numel())


def test_without_alpha_the_losses_are_plain(bench):
    part = Part(bench, make("neftune", alpha=0.0))
    assert torch.equal(part.losses(), part.plain())


def test_outside_training_there_is_no_noise(part):
    before = part.plain()
    assert not torch.equal(part.losses(), before)
    assert torch.equal(part.plain(), before)


def test_scores_are_the_plain_models(tmp_path, encoder_folder):
    """A model that has not moved, trained at a rate of almost nothing, scores as it would without noise."""
    treated, plain = (
        Variant.of(tmp_path / str(len(given)), encoder_folder, "classification", {"type": "full"}, given,
                   learning_rate=1e-12, max_steps=2).run([0], "run")[0]
        for given in ([{"type": "neftune"}], [])
    )  # fmt: skip
    assert treated.losses != plain.losses
    assert treated.predictions.loss.tolist() == pytest.approx(plain.predictions.loss.tolist(), rel=1e-6)
