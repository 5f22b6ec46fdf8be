"""A head of our own over pooled hidden states: padding never counts, and it works on every kind of model."""

import pytest
import torch

from finetune.core.randomness import Streams
from finetune.models import ModelOptions, Pooling, head_parameters, load_base, skeleton
from finetune.models.pooled import PooledForSequenceClassification, pool
from finetune.models.pooling import POOLED
from tests import tiny

MODES = ["cls", "mean", "last", "max"]
SAVED = {
    "bert": tiny.save_encoder,
    "llama": tiny.save_decoder,
    "gpt2": tiny.save_gpt2,
    "t5": tiny.save_t5,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    made = {}

    def load(name):
        if name not in made:
            folder = SAVED[name](tmp_path_factory.mktemp(name))
            made[name] = load_base(ModelOptions(source=str(folder)), POOLED, True, num_labels=3, pad_token_id=0), folder
        return made[name]

    return load


@pytest.mark.parametrize(
    "mode, wanted", [("cls", [1.0, -5.0]), ("last", [3.0, 9.0]), ("mean", [2.0, 2.0]), ("max", [3.0, 9.0])]
)
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_padding_does_not_count_on_either_side(mode, wanted, left):
    text, padding = torch.tensor([[1.0, -5.0], [3.0, 9.0]]), torch.tensor([[7.0, float("nan")]])
    hidden = torch.cat([padding, text] if left else [text, padding])[None]
    mask = torch.tensor([[0, 1, 1] if left else [1, 1, 0]])
    assert pool(hidden, mask, mode)[0].tolist() == wanted


@pytest.mark.parametrize("mode", MODES)
def test_a_text_without_tokens_is_zero_whatever_stands_beside_it(mode):
    hidden = torch.full((2, 3, 4), float("nan"))
    hidden[0] = 1.0
    assert pool(hidden, torch.tensor([[1, 1, 1], [0, 0, 0]]), mode).tolist() == [[1.0] * 4, [0.0] * 4]
    assert pool(hidden[:, :0], torch.ones(2, 0), mode).tolist() == [[0.0] * 4] * 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SAVED)
def test_a_text_gets_the_same_alone_and_beside_a_longer_one(base, name, mode):
    model = base(name)[0].copy(Streams(1)).eval()
    model.pooling = Pooling(mode=mode, normalise=True)
    ids = torch.tensor([[9, 17, 33, 0, 0], [12, 55, 8, 91, 60]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1] * 5])
    with torch.no_grad():
        alone, beside = model(input_ids=ids[:1, :3]).logits, model(input_ids=ids, attention_mask=mask).logits
        empty = model(input_ids=ids[:, :0], attention_mask=mask[:, :0]).logits
    torch.testing.assert_close(beside[:1], alone, rtol=0, atol=1e-5)
    assert torch.equal(empty, model.classification_head.bias.expand(2, 3))


@pytest.mark.parametrize("name", SAVED)
def test_only_the_linear_layer_is_new_and_nothing_is_left_over(base, name):
    loaded, folder = base(name)
    assert loaded.new == {"classification_head.weight", "classification_head.bias"}
    assert head_parameters(loaded.model) == loaded.new
    assert not any("pooler" in key or "decoder" in key.split(".") for key in loaded.model.state_dict())
    assert loaded.model.get_input_embeddings().weight.shape[0] == loaded.model.config.vocab_size
    empty = skeleton(ModelOptions(source=str(folder)), POOLED, num_labels=3)
    assert {key: value.shape for key, value in empty.state_dict().items()} == {
        key: value.shape for key, value in loaded.model.state_dict().items()
    }


@pytest.mark.parametrize("name", SAVED)
def test_each_seed_draws_a_head_of_its_own(base, name):
    one, same, other = (base(name)[0].copy(Streams(seed)).classification_head for seed in (1, 1, 2))
    assert torch.equal(one.weight, same.weight) and not torch.equal(one.weight, other.weight)
    assert one.weight.std().item() == pytest.approx(0.02, rel=0.5) and not one.bias.any()


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_one_comes_back_with_its_pooling(base, name, tmp_path):
    model = base(name)[0].copy(Streams(1)).eval()
    model.pooling = Pooling(mode="max", normalise=True, reason="said so")
    model.save_pretrained(tmp_path)
    again = PooledForSequenceClassification.from_pretrained(tmp_path)
    ids = torch.tensor([[9, 17, 33, 70]])
    assert again.pooling == model.pooling
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_pooler_that_the_checkpoint_lacks_is_not_missed(tmp_path):
    """A masked language model's checkpoint has no pooler: a head on it would stand on random numbers."""
    from transformers import BertConfig, BertForMaskedLM

    size = tiny.save_tokenizer(tmp_path)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    BertForMaskedLM(BertConfig(vocab_size=size, **shape)).save_pretrained(tmp_path)
    loaded = load_base(ModelOptions(source=str(tmp_path)), POOLED, True, num_labels=2)
    assert loaded.new == {"classification_head.weight", "classification_head.bias"}


def test_one_output_has_a_squared_error(tmp_path, encoder_folder):
    """As transformers' own classes have it where there is one output."""
    model = load_base(ModelOptions(source=str(encoder_folder)), POOLED, True, num_labels=1).copy(Streams(1)).eval()
    ids, labels = torch.tensor([[9, 17, 33], [70, 12, 9]]), torch.tensor([2.0, -1.0])
    found = model(input_ids=ids, labels=labels)
    assert found.logits.shape == (2, 1)
    assert found.loss.item() == pytest.approx(((found.logits[:, 0] - labels) ** 2).mean().item())


def save_funnel(folder):
    """Its bare model has an encoder and a decoder inside, and is no encoder-decoder."""
    from transformers import FunnelConfig, FunnelModel

    shape = {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1], "num_decoder_layers": 1}
    FunnelModel(FunnelConfig(vocab_size=tiny.save_tokenizer(folder), **shape)).save_pretrained(folder)
    return folder


def save_experts(folder):
    """Its files name each expert's weights, and the model holds them all in one."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "intermediate_size": 64}
    size = tiny.save_tokenizer(folder)
    Qwen3MoeForCausalLM(Qwen3MoeConfig(vocab_size=size, **shape, **experts)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("save", [save_funnel, save_experts])
def test_families_that_are_built_otherwise(save, tmp_path):
    torch.manual_seed(0)
    options = ModelOptions(source=str(save(tmp_path)))
    model = load_base(options, POOLED, True, num_labels=3, pad_token_id=0).copy(Streams(1)).eval()
    model.pooling = Pooling(mode="mean", normalise=False)
    model.save_pretrained(tmp_path / "saved")
    again = PooledForSequenceClassification.from_pretrained(tmp_path / "saved")
    ids = torch.tensor([[9, 17, 33, 70]])
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
