"""Models give what they give users of plain transformers, or examples share less, or the model is refused."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers as tf

from finetune import models, recipe
from finetune.core.errors import InputError
from finetune.core.progress import Progress
from finetune.core.randomness import Streams
from finetune.core.run_dir import read_json
from finetune.models import ModelOptions, load_base, load_config, load_tokenizer
from finetune.runner import parity
from finetune.runner.parity import compare
from finetune.runner.resources import Resources
from finetune.study.preflight import preflight
from finetune.study.running import run_study
from finetune.tasks.batching import Batching
from finetune.tasks.chat import Chat
from finetune.tasks.classification import Classification
from finetune.tasks.language import Language
from finetune.tasks.regression import Regression
from tests import tiny
from tests.train.workbench import make_runtime

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
FEWER = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8}
STATE = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
RWKV = {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 64}
GRIFFIN = {**SHAPE, "num_hidden_layers": 3, "intermediate_size": 96, "num_key_value_heads": 1, "lru_width": 32}
PACKED, PADDED, SAME_LENGTH, SINGLE = Batching
DECODERS = {
    "llama": (tf.LlamaForCausalLM, FEWER, PACKED, PADDED),
    "mamba": (tf.MambaForCausalLM, STATE, PADDED, PADDED),
    # Whose state goes through padding, which leaves a trace once biases have been trained.
    "recurrent gemma": (tf.RecurrentGemmaForCausalLM, GRIFFIN, PADDED, SAME_LENGTH),
    "rwkv": (tf.RwkvForCausalLM, {**RWKV, "context_length": 64}, PADDED, SINGLE),
}
ENCODERS = {
    "bert": (tf.BertForMaskedLM, SHAPE, PADDED),
    "fnet": (tf.FNetForMaskedLM, {**SHAPE, "use_tpu_fourier_optimizations": False}, SAME_LENGTH),
    "convbert": (tf.ConvBertForMaskedLM, SHAPE, SAME_LENGTH),
    # Which reads a text out at the last place of its row.
    "xlnet": (tf.XLNetLMHeadModel, {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}, SAME_LENGTH),
}


def save(folder, kind, shape, chat):
    """A tiny model of a family, with its tokenizer."""
    size = tiny.save_tokenizer(folder, chat)
    torch.manual_seed(0)
    kind(kind.config_class(vocab_size=size, pad_token_id=0, eos_token_id=4, **shape)).save_pretrained(folder)
    return folder


def table():
    rows = tiny.sentences(24)
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    numbers = [len(text) / 3 for text in texts]
    return tiny.dataset(text=texts, label=labels, target=numbers, prompt=texts, completion=labels)


TASKS = {
    "chat": lambda: Chat(Chat.Options(type="chat", prompt="prompt", completion="completion")),
    "language": lambda: Language(Language.Options(type="language")),
    "classification": lambda: Classification(Classification.Options(type="classification")),
    "regression": lambda: Regression(Regression.Options(type="regression")),
}


def on_bench(folder, name):
    """A task fitted to a model, its examples, and the model as it is compared."""
    options, task, data = ModelOptions(source=str(folder), dtype="float32"), TASKS[name](), table()
    task.config = lambda: load_config(options)
    task.fit(tiny.splits(data), load_tokenizer(options))
    base = load_base(options, task.architecture, task.new_head, **task.model_config())
    return task, task.encode(data, "data", True).examples, base.copy(Streams(0)).requires_grad_(False)


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_shares_what_changes_nothing(tmp_path, name):
    kind, shape, batching, answering = DECODERS[name]
    task, examples, model = on_bench(save(tmp_path, kind, shape, chat=True), "chat")
    found = compare(model, task, examples)
    assert (found.batching, found.answering, found.refused) == (batching, answering, None)
    assert bool(found.given_up) is (name != "llama")


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_shares_what_changes_nothing(tmp_path, name, task):
    """Also of one output, which has no others beside it that would tell how large a difference is."""
    kind, shape, batching = ENCODERS[name]
    task, examples, model = on_bench(save(tmp_path, kind, shape, chat=False), task)
    found = compare(model, task, examples)
    assert (found.batching, found.refused) == (batching, None)
    assert (found.line(name) is None) is (name == "bert")


@pytest.mark.parametrize("task", ["chat", "language"])
def test_a_decoder_that_sees_later_tokens_is_refused(tmp_path, task):
    shape = {**FEWER, "use_bidirectional_attention": True}
    task, examples, model = on_bench(save(tmp_path, tf.Gemma3ForCausalLM, shape, chat=True), task)
    assert "sees the words after" in compare(model, task, examples).refused


@pytest.fixture
def llama(decoder_folder):
    return on_bench(decoder_folder, "chat")


def test_a_model_that_looks_one_token_ahead_is_refused(llama):
    task, examples, model = llama
    model.model.norm.register_forward_hook(lambda module, inputs, output: output + 0.1 * output.roll(-1, 1))
    assert "sees the words after" in compare(model, task, examples).refused


def test_a_model_with_other_outputs_in_any_batch_of_ours_is_refused(llama):
    task, examples, model = llama
    called = []

    def drift(module, inputs, output):
        called.append(1)
        return output * (1 + 0.1 * len(called) * torch.linspace(0, 1, output.shape[-1]))

    model.lm_head.register_forward_hook(drift)
    task.__class__ = type("Encoding", (Chat,), {"causal": False})
    assert "other outputs than plain transformers, however it is run" in compare(model, task, examples).refused


def test_a_model_that_plain_transformers_cannot_run_is_refused(llama):
    task, examples, model = llama
    model.model.norm.register_forward_hook(lambda *_: 1 / 0)
    assert "cannot run this llama model on the data: division by zero" in compare(model, task, examples).refused


def test_a_model_whose_outputs_depend_on_the_others_in_a_batch_gets_one_example_at_a_time(llama):
    task, examples, model = llama
    model.model.norm.register_forward_hook(
        lambda module, inputs, output: output - output.mean((0, 1)) * (len(output) > 1)
    )
    found = compare(model, task, examples)
    assert (found.batching, found.answering) == (SINGLE, SINGLE)


def test_comparing_draws_nothing(llama):
    task, examples, model = llama
    state = torch.get_rng_state()
    compare(model, task, examples)
    assert torch.equal(torch.get_rng_state(), state)


def test_few_examples_differ_in_length_and_two_do_not(llama):
    task, examples, _ = llama
    for some in (examples, examples[:1], [parity.shortened(examples[0], 5)] * 9):
        lengths = [example.length for example in parity.choose(task, some)]
        assert len(lengths) == 4 and lengths[0] > lengths[1] == lengths[2] and max(lengths) <= parity.MOST_TOKENS
        assert lengths[3] <= parity.SHORT


def test_a_pair_is_shortened_in_both_its_halves(llama):
    _, examples, _ = llama
    first, second = examples[0], examples[1]
    ids = np.concatenate([first.inputs["input_ids"], second.inputs["input_ids"]])
    pair = dataclasses.replace(first, inputs={"input_ids": ids}, target=ids, rejected=first.length)
    short = parity.shortened(pair, 8)
    chosen, rejected = short.parts(short.target)
    assert len(chosen) == len(rejected) == 8
    assert chosen[0] == ids[0] and rejected[-1] == ids[-1] and rejected[0] == second.inputs["input_ids"][0]


def test_a_difference_of_one_output_is_a_share_of_what_examples_differ_by():
    wanted = torch.tensor([[0.5]])
    among = torch.tensor([[0.5], [0.7], [0.3]])
    assert parity.farthest(wanted, wanted, among) == 0
    size = float(among.std(correction=0)) + 0.07
    assert parity.farthest(wanted + 0.1, wanted, among) == pytest.approx(0.1 / size, rel=1e-5)
    assert parity.farthest(wanted * torch.nan, wanted, among) == np.inf


# In a study


class Told(Progress):
    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def fnet_study(folder, *overrides):
    save(folder, *ENCODERS["fnet"][:2], chat=False)
    return recipe.load(tiny.write_topics(folder, folder), ["seeds=1", *overrides])


def test_a_study_says_what_was_given_up_once_and_scores_alike_in_any_batch(tmp_path):
    scores = []
    for size in (1, 7):
        folder, told = tmp_path / str(size), Told()
        folder.mkdir()
        outcome = run_study(fnet_study(folder, f"scoring.batch_size={size}"), folder / "runs", told)
        assert len([line for line in told.lines if "Goes on with one length a batch" in line]) == 1
        runs = [read_json(outcome.folder / name / "seed-0" / "result.json") for name in ("linear", "full")]
        assert runs[1]["training"]["way"] == "one length a batch"
        scores.append([run["scores"]["test/nll"] for run in runs])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)


def test_a_refused_study_leaves_nothing(tmp_path):
    save(tmp_path, tf.Gemma3ForCausalLM, {**FEWER, "use_bidirectional_attention": True}, chat=True)
    study = recipe.load(tiny.write_chat_study(tmp_path, tmp_path))
    with pytest.raises(InputError, match="sees the words after") as caught:
        run_study(study, tmp_path / "runs")
    assert caught.value.problems[0].where.endswith("chats.yaml:3")
    assert not (tmp_path / "runs").exists()


def test_what_is_finished_is_not_compared_again(topics, monkeypatch):
    study = recipe.load(topics, ["seeds=1"])
    run_study(study, topics.parent / "runs")
    monkeypatch.setattr(parity, "compare", lambda *_: pytest.fail("compared"))
    run_study(study, topics.parent / "runs")


def test_a_check_compares_a_small_model_without_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load_base", lambda *_, **__: pytest.fail("weights were loaded"))
    study, sizes = fnet_study(tmp_path), []
    own = parity.compare
    monkeypatch.setattr(
        parity, "compare", lambda model, *rest: sizes.append(model.config.num_hidden_layers) or own(model, *rest)
    )
    lines = preflight(study, compared=True).lines()
    assert sizes == [2, 2], "once for each head"
    assert len([line for line in lines if "Goes on with one length a batch" in line]) == 1


def test_a_check_refuses_a_model_that_looks_ahead(tmp_path):
    save(tmp_path, tf.Gemma3ForCausalLM, {**FEWER, "use_bidirectional_attention": True}, chat=True)
    with pytest.raises(InputError, match="sees the words after"):
        preflight(recipe.load(tiny.write_chat_study(tmp_path, tmp_path)), compared=True)


def test_comparing_leaves_the_base_model_as_it_is(topics):
    """Also where weights are alike, which are changed to be compared."""
    resolved = recipe.load(topics)
    resources, variant = Resources(), resolved.variants[0].recipe
    data = resources.data(variant, 0)
    base = resources.base(variant.model, data.task)
    alike = [
        name for name, value in base.model.named_parameters() if value.ndim == 1 and bool((value == value[0]).all())
    ]
    before = {name: value.detach().clone() for name, value in base.model.named_parameters()}
    parity._compare_untuned(data, base, make_runtime(topics.parent))
    assert alike and all(torch.equal(value, before[name]) for name, value in base.model.named_parameters())
