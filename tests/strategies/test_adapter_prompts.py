"""Virtual tokens: a text's outputs are those of the text alone, wherever it is padded, scored or continued."""

import peft
import pytest
import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

from finetune.core.errors import InputError
from finetune.core.registry import STRATEGIES
from finetune.study.preflight import dry_run
from finetune.tasks.causal.loss_paths import loss_path_of
from tests.replicas.groups import Variant

EMBEDDED = ["prompt", "p-tuning"]
METHODS = [*EMBEDDED, "prefix"]
TEXT = torch.tensor([[9, 17, 33, 70, 2]])
FEW = {"options": {"num_virtual_tokens": 3}}


def output(model, ids=TEXT, **inputs):
    with torch.no_grad():
        return model.eval()(input_ids=ids, **inputs).logits


@pytest.mark.parametrize("build", ["llama", "gpt2", "bert", "llama-classifier"])
@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_nothing(prepare, build, method):
    model = prepare(build, "adapter", method=method, **FEW).model
    padded = torch.cat([TEXT, torch.zeros(1, 4, dtype=torch.int64)], 1)
    alone, beside = output(model), output(model, padded, attention_mask=(padded > 0).long())
    assert alone.shape[:-1] == ((1, 5) if build in ("llama", "gpt2") else (1,))
    assert torch.allclose(beside[:, :5] if alone.ndim == 3 else beside, alone, atol=1e-5)
    counted = output(model, position_ids=torch.arange(5)[None])  # in the text, as batches of a chat have them
    assert torch.allclose(counted, alone, atol=1e-5)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("method", EMBEDDED)
def test_virtual_tokens_have_positions_in_models_that_count_what_is_no_padding(method, padding):
    """RoBERTa numbers tokens from the one after its padding's."""
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    plain = RobertaForSequenceClassification(RobertaConfig(vocab_size=100, pad_token_id=padding, **size))
    plugin, seen = STRATEGIES.get("adapter"), []
    model = plugin(plugin.Options(type="adapter", method=method, **FEW)).prepare(plain, set())
    plain.roberta.embeddings.position_embeddings.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    output(model)
    assert seen[0].tolist() == [list(range(padding + 1, padding + 1 + 3 + 5))]


@pytest.mark.parametrize("build", ["llama", "bert", "llama-classifier"])
@pytest.mark.parametrize("method", METHODS)
def test_one_text_without_padding_comes_out_as_from_peft(prepare, shake, tmp_path, build, method):
    """Where peft's own wrappers are right."""
    made = prepare(build, "adapter", method=method, **FEW)
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(made.base, tmp_path)
    wanted = output(theirs, attention_mask=torch.ones_like(TEXT))
    wanted = wanted[:, -5:] if wanted.ndim == 3 else wanted  # theirs hand out what follows virtual tokens, too
    assert torch.allclose(output(made.model), wanted, atol=1e-5)


@pytest.mark.parametrize("build", ["llama", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_generation_goes_on_as_scoring_says(prepare, shake, build, method):
    """Greedily, from prompts of different lengths, padded at the left."""
    model = prepare(build, "adapter", method=method, **FEW).model
    shake(model)
    prompts = [[9, 17, 33, 70, 2], [12, 55]]
    ids = torch.tensor([[0] * (5 - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (5 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    found = model.eval().generate(ids, mask, max_new_tokens=6, do_sample=False, eos_token_id=-1, pad_token_id=0)
    assert found.shape == (2, 11) and torch.equal(found[:, :5], ids)
    for prompt, row in zip(prompts, found.tolist(), strict=True):
        text = list(prompt)
        for _ in range(6):
            text.append(int(output(model, torch.tensor([text]))[0, -1].argmax()))
        assert row[5:] == text[len(prompt) :]


@pytest.mark.parametrize("method", METHODS)
def test_every_virtual_token_matters(prepare, method):
    model = prepare("llama", "adapter", method=method, **FEW).model
    before = output(model)
    for number in range(3):
        with torch.no_grad():
            model.prompt_encoder["default"].embedding.weight[number] += 1.0
        assert not torch.allclose(output(model), before, atol=1e-4)
        before = output(model)


@pytest.mark.parametrize("method", METHODS)
def test_a_language_model_is_run_one_example_a_row_with_labels_only(prepare, method):
    """Two texts in one row would share one set of virtual tokens, which only the first of them sees."""
    model = prepare("llama", "adapter", method=method, **FEW).model
    path = loss_path_of(model, list(range(10, 26)), 1)
    assert not path.packed and path.head == "chunks"


@pytest.mark.parametrize("method", METHODS)
def test_nothing_below_is_remembered(prepare, method):
    assert not prepare("llama", "adapter", method=method).strategy.can_cache_prefix


def test_an_lstm_before_virtual_tokens_trains_one_run_at_a_time(prepare, logits):
    options = {"encoder_reparameterization_type": "LSTM"}
    made = prepare("llama", "adapter", method="p-tuning", options=options)
    assert not made.strategy.can_stack and any("lstm" in name for name in made.trained)
    assert logits(made.model).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_virtual_tokens_count_where_positions_are_few(tmp_path, decoder_folder, method):
    strategy = {"type": "adapter", "method": method, "options": {"num_virtual_tokens": 100}}
    variant = Variant.of(tmp_path, decoder_folder, "chat", strategy)
    with pytest.raises(InputError, match="the model has room for 28"):
        dry_run(variant.recipe, [0], variant.resources)


@pytest.mark.parametrize("method", METHODS)
def test_what_disturbs_embeddings_disturbs_those_of_the_text_only(tmp_path, decoder_folder, method):
    strategy = {"type": "adapter", "method": method, "options": {"num_virtual_tokens": 3}}
    plain = Variant.of(tmp_path / "plain", decoder_folder, "chat", strategy).run([0], "x")
    noised = Variant.of(tmp_path / "noised", decoder_folder, "chat", strategy, [{"type": "neftune"}]).run([0], "x")
    assert noised[0].losses != plain[0].losses
    assert noised[0].losses == pytest.approx(plain[0].losses, rel=0.1)


@pytest.mark.parametrize("method", METHODS[1:])
def test_answers_of_runs_side_by_side_are_those_of_runs_alone(tmp_path, decoder_folder, method):
    strategy = {"type": "adapter", "method": method, "options": {"num_virtual_tokens": 3}}
    variant = Variant.of(tmp_path, decoder_folder, "chat", strategy)
    together = variant.run([0, 1], "together")
    alone = [variant.run([seed], "alone")[0] for seed in (0, 1)]
    assert [came.predictions.prediction for came in together] == [came.predictions.prediction for came in alone]
