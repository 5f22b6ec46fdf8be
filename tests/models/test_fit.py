"""A base checkpoint that does not fit its model is refused, from its header and on loading alike."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel, ElectraConfig, ElectraForPreTraining, Qwen3MoeConfig, Qwen3MoeForCausalLM

from finetune import recipe
from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.models import ModelOptions, initialise, load_base, skeleton, weightless_base
from finetune.models.fit import is_named, naming
from finetune.study.running import run_study
from tests import tiny

CLASSIFIER = "AutoModelForSequenceClassification"
CHAT = "AutoModelForCausalLM"
MASKED = "AutoModelForMaskedLM"


def from_header(source, architecture, new_head=False, **config):
    return weightless_base(source, skeleton(source, architecture, **config), new_head)


both = pytest.mark.parametrize("load", [load_base, from_header])


def options(source, **more):
    return ModelOptions(source=str(source), **more)


def refusal(load, *arguments, **keywords):
    with pytest.raises(InputError) as error:
        load(*arguments, **keywords)
    (problem,) = error.value.problems
    assert problem.path == "model.source" and "\n" not in problem.found
    return problem


def changed(folder, target, change, **config):
    """A copy of a model whose weights are what ``change`` makes of them, and whose configuration says more."""
    shutil.copytree(folder, target)
    weights = change(load_file(folder / "model.safetensors"))
    save_file({name: value.contiguous() for name, value in weights.items()}, target / "model.safetensors")
    said = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(said | config))
    return target


def as_it_is(weights):
    return weights


def without(*words):
    return lambda weights: {name: value for name, value in weights.items() if not any(word in name for word in words)}


@pytest.fixture
def decoding(encoder_folder, tmp_path):
    """An encoder whose configuration asks for cross-attention that its checkpoint does not have."""
    return changed(encoder_folder, tmp_path / "model", as_it_is, is_decoder=True, add_cross_attention=True)


# What is missing


@both
def test_missing_weights_are_refused_with_what_to_write(load, decoding):
    problem = refusal(load, options(decoding), CLASSIFIER, new_head=True, num_labels=3)
    assert "lacks 20 of this model's 57 weights" in problem.found and "and 17 more" in problem.found
    assert "bert.encoder.layer.0.crossattention.output.LayerNorm.bias" in problem.found
    assert "write model.new: [crossattention]" in problem.advice


@both
@pytest.mark.parametrize("word", ["crossattention", "*.crossattention", "encoder.layer.*.crossattention", "cross*"])
def test_what_the_recipe_names_is_drawn_afresh_listed_and_counted_as_new(load, decoding, word):
    base = load(options(decoding, new=[word]), CLASSIFIER, new_head=True, num_labels=3)
    beside = {name for name, _ in base.model.named_parameters() if "crossattention" in name}
    assert len(beside) == 20 and base.new == beside | {"classifier.weight", "classifier.bias"}
    assert base.told == (
        "drawn afresh in each run, beside the head: bert.encoder.layer.*.crossattention.output.LayerNorm, "
        "bert.encoder.layer.*.crossattention.output.dense, bert.encoder.layer.*.crossattention.self.key and 2 more",
    )


def test_what_is_new_differs_between_seeds_and_the_rest_does_not(decoding):
    base = load_base(options(decoding, new=["crossattention"]), CLASSIFIER, new_head=True, num_labels=3)
    one, other = (dict(base.copy(Streams(seed)).named_parameters()) for seed in (1, 2))
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert differing == {name for name in base.new if one[name].ndim > 1}
    assert any("crossattention" in name for name in differing)


@both
def test_an_untied_output_layer_has_to_be_there_and_a_tied_one_need_not(load, tmp_path):
    untied = tiny.save_decoder(tmp_path / "untied", tie_word_embeddings=False)
    headless = changed(untied, tmp_path / "headless", without("lm_head"))
    problem = refusal(load, options(headless), CHAT)
    assert "lacks 1 of" in problem.found and "lm_head.weight" in problem.found and "[lm_head]" in problem.advice
    assert load(options(headless, new=["lm_head"]), CHAT).new == {"lm_head.weight"}
    assert load(options(headless), CLASSIFIER, new_head=True, num_labels=2, pad_token_id=0).new == {"score.weight"}
    tied = tiny.save_decoder(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tied / "model.safetensors")
    assert load(options(tied), CHAT).new == frozenset()


@both
def test_a_masked_model_needs_the_layer_that_it_was_pretrained_with(load, encoder_folder):
    problem = refusal(load, options(encoder_folder), MASKED)
    assert "cls.predictions.bias" in problem.found and "write model.new: [cls]" in problem.advice
    base = load(options(encoder_folder, new=["cls"]), MASKED)
    assert len(base.new) == 5 and base.told == ("drawn afresh in each run, beside the head: cls.predictions",)


def test_another_tasks_head_is_no_other_name_for_the_one_that_is_missing(tmp_path):
    size = tiny.save_tokenizer(tmp_path)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    ElectraForPreTraining(ElectraConfig(vocab_size=size, embedding_size=32, **shape)).save_pretrained(tmp_path)
    problem = refusal(from_header, options(tmp_path), MASKED)
    assert "there is" not in problem.found
    assert "write model.new: [generator_predictions, generator_lm_head]" in problem.advice


@both
def test_a_missing_pooler_is_told_and_no_more(load, encoder_folder, tmp_path):
    bare = changed(encoder_folder, tmp_path / "bare", without("pooler"))
    base = load(options(bare), CLASSIFIER, new_head=True, num_labels=3)
    assert base.told == ("drawn afresh in each run, beside the head: bert.pooler.dense",)
    assert load(options(encoder_folder), CLASSIFIER, new_head=True, num_labels=3).told == ()


# What is of another shape, or under another name


@both
def test_weights_of_another_shape_are_refused(load, encoder_folder, tmp_path):
    wider = changed(encoder_folder, tmp_path / "model", as_it_is, max_position_embeddings=140)
    problem = refusal(load, options(wider), CLASSIFIER, new_head=True, num_labels=3)
    assert "1 have another shape, such as bert.embeddings.position_embeddings.weight (128 x 32 for 140 x 32)" in (
        problem.found
    )
    assert "model.new: [position_embeddings]" in problem.advice


@both
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "wrapped.bert."])
def test_weights_under_other_names_are_refused_with_the_names_they_have(load, encoder_folder, tmp_path, prefix):
    renamed = changed(
        encoder_folder, tmp_path / "model", lambda weights: {prefix + name: value for name, value in weights.items()}
    )
    problem = refusal(load, options(renamed), CLASSIFIER, new_head=True, num_labels=3)
    assert f"(there is {prefix}embeddings.LayerNorm.bias)" in problem.found
    assert "lacks 37 of this model's 37 weights" in problem.found and "without what wrapped the model" in problem.advice
    assert "model.new" not in problem.advice


@both
def test_a_checkpoint_of_another_model_is_refused(load, encoder_folder, decoder_folder, tmp_path):
    folder = shutil.copytree(encoder_folder, tmp_path / "model")
    shutil.copyfile(decoder_folder / "model.safetensors", folder / "model.safetensors")
    problem = refusal(load, options(folder), CLASSIFIER, new_head=True, num_labels=3)
    assert "37 of this model's 37" in problem.found and "belongs to this config.json" in problem.advice


@both
def test_blocks_that_the_configuration_leaves_out_are_told(load, encoder_folder, tmp_path):
    shallow = changed(encoder_folder, tmp_path / "model", as_it_is, num_hidden_layers=1)
    base = load(options(shallow), CLASSIFIER, new_head=True, num_labels=3)
    (line,) = base.told
    assert line.startswith("this model has no place for the checkpoint's ") and "encoder.layer.*.attention" in line


# From the header alone


def test_the_header_is_judged_as_the_weights_are_for_experts_that_are_joined_on_loading(tmp_path):
    size = tiny.save_tokenizer(tmp_path)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    experts = {"num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    Qwen3MoeForCausalLM(Qwen3MoeConfig(vocab_size=size, pad_token_id=0, **shape, **experts)).save_pretrained(tmp_path)
    assert any("experts.3.up_proj" in name for name in load_file(tmp_path / "model.safetensors"))
    for load in (load_base, from_header):
        assert load(options(tmp_path), CHAT).new == frozenset()
    broken = changed(tmp_path, tmp_path / "broken", without("layers.1.mlp.experts"))
    for load in (load_base, from_header):
        assert "layers.1.mlp.experts" in refusal(load, options(broken), CHAT).found


def test_weights_that_cannot_be_joined_are_refused_in_one_line(tmp_path):
    test_the_header_is_judged_as_the_weights_are_for_experts_that_are_joined_on_loading(tmp_path / "whole")

    def narrow(weights):
        name = "model.layers.0.mlp.experts.2.up_proj.weight"
        return weights | {name: weights[name][:3]}

    problem = refusal(load_base, options(changed(tmp_path / "whole", tmp_path / "odd", narrow)), CHAT)
    assert "could not be loaded: Error" in problem.found and "experts" in problem.found


def test_a_checkpoint_in_several_files_is_read_and_a_missing_one_told(encoder_folder, tmp_path):
    folder = shutil.copytree(encoder_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    BertModel.from_pretrained(encoder_folder).save_pretrained(folder, max_shard_size="40KB")
    assert (folder / "model.safetensors.index.json").exists()
    assert from_header(options(folder), CLASSIFIER, num_labels=3).told == ()
    last = sorted(folder.glob("*.safetensors"))[-1]
    last.unlink()
    assert last.name in refusal(from_header, options(folder), CLASSIFIER, num_labels=3).found


@both
@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b""])
def test_a_file_that_is_cut_off_or_a_pointer_is_refused_in_one_line(load, encoder_folder, tmp_path, content):
    folder = shutil.copytree(encoder_folder, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(content)
    refusal(load, options(folder), CLASSIFIER, num_labels=3)


def test_the_header_stands_for_the_checkpoint_where_it_is_a_pickle(encoder_folder, tmp_path):
    """Shapes are not read from pickles: the loading says what is missing."""
    folder = changed(encoder_folder, tmp_path / "model", as_it_is)
    torch.save(without("word_embeddings")(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    allowed = options(folder, allow_pickle=True)
    from_header(allowed, CLASSIFIER, new_head=True, num_labels=3)
    assert "word_embeddings" in refusal(load_base, allowed, CLASSIFIER, new_head=True, num_labels=3).found


# Patterns


def test_a_pattern_names_whole_words_of_a_name():
    name = "bert.encoder.layer.11.crossattention.self.query.weight"
    for pattern in ("crossattention", "layer.11", "self.query", "query.weight", "*.self", name, "*", "layer.*.cross*"):
        assert is_named(name, [pattern]), pattern
    for pattern in ("cross", "layer.1", "attention", "encoder.11", "bert.self"):
        assert not is_named(name, [pattern]), pattern


@pytest.mark.parametrize(
    ("names", "others", "wanted"),
    [
        (["a.0.cross.w", "a.1.cross.w"], ["a.0.self.w"], ["cross"]),
        (["a.0.self.q.w", "a.0.self.k.w"], ["a.0.self.v.w", "b.q.w", "b.k.w"], ["a.*.self.k", "a.*.self.q"]),
        (["a.1.w"], ["a.0.w"], ["a.1.w"]),
        (["x.w", "y.w"], ["z.w"], ["x", "y"]),
    ],
)
def test_the_advice_names_all_that_is_missing_and_nothing_else(names, others, wanted):
    assert naming(names, others) == wanted
    assert all(is_named(name, wanted) for name in names) and not any(is_named(name, wanted) for name in others)


def test_drawing_a_bias_leaves_its_weight_alone(encoder_folder):
    model = BertModel.from_pretrained(encoder_folder)
    dense = model.encoder.layer[0].output.dense
    before = dense.weight.detach().clone()
    dense.bias.data.fill_(3.0)
    initialise(model, ["encoder.layer.0.output.dense.bias"])
    assert torch.equal(dense.weight, before) and not dense.bias.any()


# GGUF


def test_a_gguf_file_that_lacks_a_weight_is_refused_on_loading(tmp_path):
    whole, broken = tiny.save_gguf(tmp_path / "a.gguf"), tiny.save_gguf(tmp_path / "b.gguf", without="blk.1.ffn_up")
    assert from_header(options(whole), CHAT).new == load_base(options(whole), CHAT).new == frozenset()
    assert "model.layers.1.mlp.up_proj.weight" in refusal(load_base, options(broken), CHAT).found


def test_what_is_new_stands_in_the_result_and_in_the_report(decoding, tmp_path):
    tiny.write_csv(tmp_path / "news.csv", tiny.sentences(30))
    content = {
        "name": "new",
        "seeds": 1,
        "model": {"source": str(decoding), "dtype": "float32", "device": "cpu", "new": ["crossattention"]},
        "data": {"train": {"path": str(tmp_path / "news.csv")}, "split": {"test": 9}},
        "task": {"type": "classification", "max_length": 32, "pooling": "model"},
        "strategy": {"type": "linear", "solver": "steps"},
        "train": {"max_steps": 2, "min_steps": 1, "evaluations": 0},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))
    outcome = run_study(recipe.load(tmp_path / "recipe.yaml"), tmp_path / "runs")
    (variant,) = (each for each in outcome.results.to_json()["variants"] if each["name"] != "base")
    assert "bert.encoder.layer.*.crossattention.self.query" in variant["new"] and "classifier" in variant["new"]
    page = (tmp_path / "runs" / "new" / "report" / "report.md").read_text(encoding="utf-8")
    assert "drawn afresh in each run" in page and "crossattention.self.query" in page
