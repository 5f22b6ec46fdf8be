"""What configurations say in each family's own way, or not at all."""

import json
import shutil

import pytest
import torch
import transformers as tf

from finetune.core.errors import InputError
from finetune.models import ModelOptions, is_masked, load_base, load_config, load_tokenizer, positions_of, skeleton
from finetune.models.configuration import check_class, lay_over
from tests import tiny

CLASSIFIER, CHAT, MASKED = "AutoModelForSequenceClassification", "AutoModelForCausalLM", "AutoModelForMaskedLM"
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 99}


def options(source, **more):
    return ModelOptions(source=str(source), **more)


def empty(config, architecture):
    with torch.device("meta"):
        return getattr(tf, architecture).from_config(config)


def refusal(call, *arguments):
    with pytest.raises(InputError) as error:
        call(*arguments)
    (problem,) = error.value.problems
    return problem


@pytest.mark.parametrize(
    "kind", ["DistilBert", "Albert", "ModernBert", "MPNet", "Deberta", "Funnel", "XLM", "Esm", "Luke"]
)
def test_an_encoder_is_one_though_its_configuration_has_no_is_decoder(kind):
    assert is_masked(getattr(tf, f"{kind}Config")())


def test_a_decoder_is_none():
    assert not is_masked(tf.BertConfig(is_decoder=True)) and not is_masked(tf.GPT2Config())


@pytest.mark.parametrize("kind", ["Gemma3", "Llama4", "Qwen3_5", "Gemma4", "Emu3"])
def test_a_padding_token_goes_where_a_configuration_of_several_parts_keeps_its_tokens(kind):
    config = lay_over(getattr(tf, f"{kind}Config")(), {"pad_token_id": 7, "num_labels": 3})
    assert config.text_config.pad_token_id == 7 and config.num_labels == 3
    assert not hasattr(config, "pad_token_id") or config.pad_token_id == 7


@pytest.mark.parametrize("kind", ["Rwkv", "CodeGen"])
def test_a_model_whose_configuration_has_no_padding_token_is_loaded(kind, tmp_path):
    size = tiny.save_tokenizer(tmp_path, chat=True)
    shape = {
        "Rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 64},
        "CodeGen": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 8},
    }
    made = getattr(tf, f"{kind}ForCausalLM")(getattr(tf, f"{kind}Config")(vocab_size=size, **shape[kind]))
    made.save_pretrained(tmp_path)
    base = load_base(options(tmp_path), CHAT, pad_token_id=0)
    assert base.new == frozenset() and base.model.config.pad_token_id == 0
    assert skeleton(options(tmp_path), CHAT, pad_token_id=0).config.pad_token_id == 0


def test_what_is_laid_over_is_what_transformers_makes_of_it(encoder_folder):
    said = {"num_labels": 2, "id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}, "pad_token_id": 0}
    wanted = tf.AutoConfig.from_pretrained(encoder_folder, **said)
    assert load_config(options(encoder_folder), **said).to_dict() == wanted.to_dict()


# Room for texts


@pytest.mark.parametrize(
    ("kind", "changes", "room"),
    [
        ("Roberta", {"max_position_embeddings": 130, "pad_token_id": 1}, 128),
        ("XLMRoberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("Camembert", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("MPNet", {"max_position_embeddings": 514}, 512),
        ("Longformer", {"max_position_embeddings": 4098, "pad_token_id": 1, "attention_window": [8, 8]}, 4096),
        ("Luke", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("Data2VecText", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("Esm", {"max_position_embeddings": 1026, "pad_token_id": 1}, 1024),
        ("IBert", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("RobertaPreLayerNorm", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("Roberta", {"max_position_embeddings": 130, "pad_token_id": 0}, 129),
        ("Bert", {"max_position_embeddings": 512}, 512),
        ("Yoso", {"max_position_embeddings": 512}, 512),  # its table has two rows more, which it skips
        ("Nystromformer", {"max_position_embeddings": 510, "segment_means_seq_len": 510}, 510),
    ],
)
def test_an_encoder_has_room_for_as_many_tokens_as_it_counts(kind, changes, room):
    config = getattr(tf, f"{kind}Config")(**{**SHAPE, **changes})
    assert positions_of(empty(config, MASKED)) == room


@pytest.mark.parametrize(
    ("kind", "changes", "room"),
    [
        ("GPT2", {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64}, 64),
        ("CTRL", {"n_embd": 32, "n_layer": 1, "n_head": 4, "dff": 64, "n_positions": 64}, 64),
        ("OPT", {**SHAPE, "word_embed_proj_dim": 32, "ffn_dim": 64, "max_position_embeddings": 64}, 64),
        ("Mpt", {"d_model": 32, "n_layers": 1, "n_heads": 4, "max_seq_len": 64}, 64),
        ("Llama", {**SHAPE, "max_position_embeddings": 64}, 64),
        ("Bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 4}, None),  # ALiBi
        ("XLNet", {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64}, None),  # which says -1
        ("Mamba", {"hidden_size": 32, "num_hidden_layers": 1}, None),
    ],
)
def test_a_decoder_says_its_limit_under_a_name_of_its_own_or_has_none(kind, changes, room):
    assert positions_of(empty(getattr(tf, f"{kind}Config")(**changes), CHAT)) == room


def test_a_text_has_to_fit_a_table_that_counts_from_behind_its_padding(tmp_path):
    """The last position that there is can be used, and the next cannot: what is checked is what torch does."""
    config = tf.RobertaConfig(**SHAPE, max_position_embeddings=20, pad_token_id=1)
    model = tf.RobertaForMaskedLM(config).eval()
    room = positions_of(model)
    assert room == 18
    with torch.no_grad():
        assert model(torch.full((1, room), 5)).logits.isfinite().all()
        with pytest.raises((IndexError, RuntimeError), match="out of"):
            model(torch.full((1, room + 1), 5))


# Classes and tokenizers


@pytest.mark.parametrize(
    ("kind", "architecture", "has"),
    [
        ("Mamba", CLASSIFIER, "types chat and language"),
        ("Rwkv", CLASSIFIER, "types chat and language"),
        ("T5", CHAT, "type classification, type seq2seq"),
        ("GPT2", MASKED, "type classification, types chat and language"),
    ],
)
def test_a_family_without_a_class_for_a_task_is_told_by_the_tasks_that_it_has(kind, architecture, has):
    problem = refusal(check_class, getattr(tf, f"{kind}Config")(), architecture)
    assert f"is a {kind.lower()} model" in problem.found and "has no class for task" in problem.found
    assert problem.advice == f"use another base, or a task that it can do: {has}"


def test_an_encoder_decoder_is_not_sent_to_a_task_that_would_refuse_it():
    assert refusal(check_class, tf.PegasusConfig(), CLASSIFIER).advice == (
        "use another base, or a task that it can do: type seq2seq"
    )


def test_every_class_that_is_there_is_accepted():
    check_class(tf.BertConfig(), CLASSIFIER)
    check_class(tf.BertConfig(), MASKED)
    check_class(tf.MambaConfig(), CHAT)


def test_a_class_that_none_of_our_tasks_uses_is_refused_by_its_name():
    problem = refusal(check_class, tf.MambaConfig(), "AutoModelForTokenClassification")
    assert problem.found.endswith("of which transformers has no AutoModelForTokenClassification")


def test_a_tokenizer_without_any_token_for_padding_is_refused(decoder_folder, tmp_path):
    folder = shutil.copytree(decoder_folder, tmp_path / "model")
    said = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("pad_token", "eos_token", "unk_token"):
        said.pop(name, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    problem = refusal(load_tokenizer, options(folder))
    assert "no padding token" in problem.found and "pad_token" in problem.advice and problem.path == "model.source"
