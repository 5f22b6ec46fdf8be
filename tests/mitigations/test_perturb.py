"""Disturbed embeddings: at the bottom of every kind of model, and only there; and how far outputs are apart."""

from types import SimpleNamespace

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import kl_div
from transformers import AutoModelForSequenceClassification, BartConfig, BartForSequenceClassification

from finetune.core.errors import InputError
from finetune.core.examples import Batch
from finetune.core.randomness import Streams
from finetune.mitigations.perturb import added, input_embeddings, over_examples, perturbed, symmetric_kl
from finetune.models import ModelOptions, load_base
from finetune.runner.build import check_together
from finetune.strategies.full import Full, FullOptions
from tests import tiny
from tests.mitigations.part import Part, make
from tests.replicas.groups import Variant, far


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    folder = tiny.save_t5(tmp_path_factory.mktemp("t5"))
    base = load_base(ModelOptions(source=str(folder)), AutoModelForSequenceClassification.__name__, num_labels=3)
    return base.copy(Streams(0)).eval()


@pytest.fixture(scope="module")
def shared():
    """A BART whose encoder and decoder look tokens up in the same module."""
    shape = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 32}
    torch.manual_seed(0)
    model = BartForSequenceClassification(BartConfig(vocab_size=50, num_labels=3, **shape, **heads)).eval()
    model.model.set_input_embeddings(model.model.shared)
    assert model.model.encoder.embed_tokens is model.model.decoder.embed_tokens
    return model


IDS = {"input_ids": torch.tensor([[5, 6, 7, 2]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}


@pytest.mark.parametrize("name", ["t5", "shared"])
def test_of_an_encoder_decoder_the_encoders_embeddings_are_changed_in_every_pass(request, name):
    model, calls, shift = request.getfixturevalue(name), [], torch.arange(32) % 5  # which no norm takes away

    def change(embeddings):
        calls.append(embeddings)
        return embeddings + shift

    encoder = model.get_encoder()
    embeddings = input_embeddings(model)(IDS["input_ids"]) + shift
    with torch.no_grad():
        inside = encoder(inputs_embeds=embeddings, attention_mask=IDS["attention_mask"])
        wanted = model.base_model(**IDS, encoder_outputs=inside, decoder_input_ids=IDS["input_ids"]).last_hidden_state
        plain = model.base_model(**IDS, decoder_input_ids=IDS["input_ids"]).last_hidden_state
        with perturbed(model.base_model, change):
            found = [model.base_model(**IDS, decoder_input_ids=IDS["input_ids"]).last_hidden_state for _ in range(2)]
        after = model.base_model(**IDS, decoder_input_ids=IDS["input_ids"]).last_hidden_state
    assert len(calls) == 2
    assert torch.equal(found[0], wanted) and torch.equal(found[1], wanted)
    assert torch.equal(after, plain) and not torch.allclose(plain, wanted)


def test_the_embeddings_are_found_inside_peft_and_in_a_group(topics_bench, tmp_path, encoder_folder):
    model = topics_bench.model()
    own = model.bert.embeddings.word_embeddings
    assert input_embeddings(model) is own
    assert input_embeddings(peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"]))) is own
    group = Variant.of(tmp_path, encoder_folder, "classification", {"type": "full"}, [{"type": "neftune"}]).assembled(
        (0, 1)
    )
    assert input_embeddings(group.model) is group.model.bert.embeddings.word_embeddings
    assert input_embeddings(group.model) is not group._places[0].plain


def test_an_exception_leaves_no_hook_behind(topics_bench):
    model = topics_bench.model().eval()
    batch = topics_bench.task.collate(topics_bench.examples[:2])
    plain = topics_bench.task.losses(model, batch)
    with pytest.raises(KeyError), perturbed(model, lambda embeddings: embeddings + 1):
        raise KeyError
    assert torch.equal(topics_bench.task.losses(model, batch), plain)


@pytest.mark.parametrize(
    "mitigation", [("r3f", {"eps": 0.3}), ("smart", {"sigma": 0.1, "eta": 0.3, "epsilon": 0.2}), ("neftune", {})]
)
def test_packing_changes_no_loss(chat_bench, mitigation):
    name, options = mitigation
    packed, apart = (
        Part(chat_bench, make(name, **options), places=range(8), packed=packed) for packed in (True, False)
    )
    assert len(packed.batch.inputs["input_ids"]) < len(apart.batch.inputs["input_ids"]) == 8
    torch.testing.assert_close(packed.losses(), apart.losses(), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(packed.losses(), packed.plain(), rtol=1e-3)


@pytest.mark.parametrize(
    "mitigation", [{"type": "neftune"}, {"type": "smart", "sigma": 0.1, "eta": 0.3, "epsilon": 0.2}]
)
def test_how_a_batch_is_cut_into_parts_changes_nothing(tmp_path, decoder_folder, mitigation):
    whole, parts = (
        Variant.of(tmp_path / str(size), decoder_folder, "chat", {"type": "full"}, [mitigation], micro_batch_size=size)
        for size in (8, 3)
    )
    assert far(whole.run([0], "run")[0], parts.run([0], "run")[0]) < 1e-3


def test_numbers_of_an_example_are_its_own_and_those_of_a_pair_are_each_sequences():
    """Packed: two examples and padding; then a pair, whose second answer begins at its position 0 again."""
    values = torch.tensor([[1.0, 5.0, 2.0, 4.0, 9.0]])
    inputs, nothing = {"position_ids": torch.tensor([[0, 1, 0, 1, 2]])}, torch.full((1, 5), -100)
    single = Batch(inputs, nothing, torch.tensor([[1, 1, 0, 0, -1]]))
    pair = Batch(inputs, nothing, torch.tensor([[0, 0, 0, 0, -1]]), torch.tensor([[0, 1, 2, 3, 4]]))
    for batch in (single, pair):
        training_state = SimpleNamespace(batch=batch)
        assert over_examples(training_state, values, "sum")[0, :4].tolist() == [6, 6, 6, 6]
        assert over_examples(training_state, values, "amax")[0, :4].tolist() == [5, 5, 4, 4]
        assert over_examples(training_state, torch.ones(1, 5), "sum")[0, :4].tolist() == [2, 2, 2, 2]


@given(st.integers(1, 8), st.integers(2, 30), st.integers(0, 99))
def test_the_symmetric_divergence_is_the_sum_of_both(labels, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    one, other = (3 * torch.randn(labels, classes, generator=generator) for _ in range(2))
    p, q = one.double().log_softmax(1), other.double().log_softmax(1)
    both = kl_div(p, q, reduction="none", log_target=True) + kl_div(q, p, reduction="none", log_target=True)
    torch.testing.assert_close(symmetric_kl(one, other).double(), both.sum(1), rtol=1e-4, atol=1e-5)
    assert not symmetric_kl(one, one).any()


def test_small_divergences_are_exact_and_never_negative():
    """Where each of the two alone would be lost in rounding: logits differ by 1e-4, divergences are about 1e-8."""
    torch.manual_seed(0)
    one = torch.randn(1000, 10)
    other = one + 1e-4 * torch.randn(1000, 10)
    found = symmetric_kl(one, other)
    p, q = one.double().softmax(1), other.double().softmax(1)
    torch.testing.assert_close(found.double(), ((p - q) * (p / q).log()).sum(1), rtol=1e-2, atol=1e-12)
    assert float(found.min()) > 0


def test_noise_is_added_in_full_precision_and_rounded_once():
    values = torch.full((10_000,), 1.0, dtype=torch.bfloat16)
    summed = added(values, torch.full((10_000,), 0.9 * 2**-7))
    assert summed.dtype == torch.bfloat16 and torch.equal(summed, torch.full_like(values, 1 + 2**-7))


NOISY = ["r3f", "r4f", "smart", "neftune"]


@pytest.mark.parametrize("pair", [(one, other) for one in NOISY for other in NOISY if one != other])
def test_what_would_measure_the_others_noise_is_refused(pair):
    with pytest.raises(InputError, match="cannot stand beside"):
        check_together(Full(FullOptions(type="full")), [make(name) for name in pair])


@pytest.mark.parametrize("name", [*NOISY, "child-tuning"])
def test_label_smoothing_goes_with_each_of_them(name):
    check_together(Full(FullOptions(type="full")), [make(name), make("label-smoothing")])
