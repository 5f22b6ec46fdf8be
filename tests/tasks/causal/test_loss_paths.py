"""Fast ways to run a model: they are taken where they give what the plainest gives, and nowhere else."""

import copy
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import peft
import pytest
import torch
import transformers as tf
from transformers.utils import logging as hf_logging

from finetune.tasks.causal import label_loss
from finetune.tasks.causal.loss_paths import HEADS, LossPath, loss_path_of, losses_of, output_layer
from finetune.tasks.causal.packing import lay_out, packed_rows, unpacked
from finetune.tasks.conversation import IGNORED

ROOT = Path(__file__).parents[3]
VOCABULARY = 120
TOKENS = list(range(3, VOCABULARY, 8))
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAST, LABELS, APART = LossPath(True, "chunks"), LossPath(True, "labels"), LossPath(False, "chunks")


def louder(model):
    """With weights so large that what a model does shows in its losses."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6 if weight.ndim > 1 else 1)
    return model.eval()


def llama(tied=True, **config):
    torch.manual_seed(0)
    config = tf.LlamaConfig(**SHAPE, tie_word_embeddings=tied, **config)
    return louder(tf.LlamaForCausalLM(config))


def gpt2():
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return louder(tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=VOCABULARY, **shape)))


def with_bias():
    model = llama(tied=False)
    model.lm_head.bias = torch.nn.Parameter(torch.linspace(-1, 1, VOCABULARY))
    return model


def adapted(*targets):
    model = peft.get_peft_model(llama(tied=False), peft.LoraConfig(target_modules=list(targets)))
    with torch.no_grad():  # B is zero at first, and would give A no gradient
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.linspace(-0.3, 0.3, weight.numel()).view_as(weight))
    return model.eval()


def batch(lengths=(9, 5, 4, 14, 7, 3), counts=None):
    """Random examples, the later half of each learnt, packed."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(3, VOCABULARY, size=length) for length in lengths]
    targets = [np.where(np.arange(len(own)) >= len(own) // 2, own, IGNORED) for own in ids]
    return lay_out(packed_rows([len(own) for own in ids], counts or [len(ids)]), ids, targets, filler=0)


def results(model, inputs, head):
    """Losses, and gradients by parameter name after weighing every example differently."""
    model.zero_grad()
    losses = losses_of(model, inputs, head)
    (losses * torch.linspace(1, 2, len(losses))).sum().backward()
    return losses.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def close(found, wanted, tolerance):
    """Relative to the largest entry of each tensor; some, such as of a bias of keys, are zero but for rounding."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance * float(value.abs().max()) + 1e-6)


MODELS = {
    "llama": llama,
    "untied": lambda: llama(tied=False),
    "bias": with_bias,
    "gpt2": gpt2,
    "adapter": lambda: adapted("q_proj", "down_proj"),
    "adapter on the output": lambda: adapted("q_proj", "lm_head"),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "name, head",
    # A layer with an adapter is not the linear layer that chunks are made for.
    [(name, head) for name in MODELS for head in HEADS if (name, head) != ("adapter on the output", "chunks")],
)
def test_losses_and_gradients_are_those_of_each_example_alone(name, packed, head, monkeypatch):
    monkeypatch.setattr(label_loss, "CHUNK_BYTES", 4 * VOCABULARY * 5)
    model, together = MODELS[name](), batch()
    apart = unpacked(together)
    losses, gradients = results(model, together if packed else apart, head)
    wanted = []
    masks = apart.inputs["attention_mask"].bool()
    for ids, targets, mask in zip(apart.inputs["input_ids"], apart.targets, masks, strict=True):
        likelihoods = model(input_ids=ids[mask][None]).logits[0].log_softmax(-1)
        places = (targets[mask] != IGNORED).nonzero()[:, 0]
        wanted.append(-likelihoods[places - 1, ids[places]].sum())
    wanted = torch.stack(wanted)
    model.zero_grad()
    (wanted * torch.linspace(1, 2, len(wanted))).sum().backward()
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
    close(gradients, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, 2e-5)
    assert gradients.keys() == {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", ["llama", "gpt2", "adapter"])
def test_in_bfloat16_they_are_nearly_the_same(name):
    model, together = MODELS[name](), batch()
    exact, slopes = results(model, unpacked(together), "everywhere")
    with torch.autocast("cpu", torch.bfloat16):
        losses, gradients = results(model, together, "chunks")
    torch.testing.assert_close(losses, exact, rtol=3e-2, atol=0.1)
    for name, slope in slopes.items():
        assert (gradients[name] - slope).norm() < 0.1 * slope.norm(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_ordinary_models_go_the_fastest_way(name, dtype):
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = loss_path_of(MODELS[name](), TOKENS, 1)
    assert found == (LABELS if name == "adapter on the output" else FAST)


# Models that are not ordinary


class Across(tf.LlamaForCausalLM):
    """Does not tell packed examples apart."""

    def forward(self, input_ids, attention_mask=None, **keywords):
        return super().forward(input_ids, attention_mask=attention_mask, **keywords)


class Elsewhere(tf.LlamaForCausalLM):
    """Does not use the output layer that it names."""

    def forward(self, input_ids, attention_mask=None, position_ids=None):
        hidden = self.model(input_ids, attention_mask, position_ids, use_cache=False).last_hidden_state
        return SimpleNamespace(logits=torch.nn.functional.linear(hidden, self.lm_head.weight))


class Nameless(tf.LlamaForCausalLM):
    def get_output_embeddings(self):
        return None


def of(kind, config, quiet=False, **settings):
    torch.manual_seed(0)
    model = kind(config(**{**SHAPE, **settings}))
    return model.eval() if quiet else louder(model)


ODD = {
    "caps its logits": (lambda quiet: of(tf.Gemma2ForCausalLM, tf.Gemma2Config, quiet, head_dim=8), LABELS),
    "scales its logits": (lambda quiet: of(tf.CohereForCausalLM, tf.CohereConfig, quiet), LABELS),
    "divides them": (lambda quiet: of(tf.GraniteForCausalLM, tf.GraniteConfig, quiet, logits_scaling=8.0), LABELS),
    "sees across examples": (lambda quiet: of(Across, tf.LlamaConfig, quiet), APART),
    "positions by itself": (lambda quiet: of(tf.OPTForCausalLM, tf.OPTConfig, quiet, ffn_dim=64), APART),
    "has a state": (lambda quiet: of(tf.MambaForCausalLM, tf.MambaConfig, quiet, state_size=4), APART),
    "another output layer": (lambda quiet: of(Elsewhere, tf.LlamaConfig, quiet), LossPath(True, "everywhere")),
    "tells no output layer": (lambda quiet: of(Nameless, tf.LlamaConfig, quiet), LossPath(True, "everywhere")),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quiet", [False, True], ids=["trained", "new"])
@pytest.mark.parametrize("name", ODD)
def test_other_models_go_the_fastest_way_that_is_right(name, quiet, dtype):
    """Also models as they are drawn, whose logits are so small that the wrong way is hardly wrong, yet."""
    make, wanted = ODD[name]
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        assert loss_path_of(make(quiet), TOKENS, 1) == wanted


@pytest.mark.parametrize("name", ODD)
def test_that_way_is_right(name):
    make, path = ODD[name]
    model, together = make(False), batch()
    wanted, slopes = results(model, unpacked(together), "everywhere")
    losses, gradients = results(model, together if path.packed else unpacked(together), path.head)
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
    close(gradients, slopes, 2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_counts_positions_along_the_row_gets_one_example_a_row(dtype):
    """Its packed examples do not see each other, but stand elsewhere than alone."""
    model = gpt2()
    model.transformer.wpe.register_forward_pre_hook(lambda module, inputs: torch.arange(inputs[0].shape[1])[None])
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        assert loss_path_of(model, TOKENS, 1) == APART


class Stack(torch.nn.Module):
    """Output layers of R replicas, whose rows come replica by replica."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, hidden):
        replicas = len(self.weight)
        own = hidden.view(replicas, -1, hidden.shape[-1])
        return (own @ self.weight.transpose(1, 2)).view(*hidden.shape[:-1], -1)


def test_stacked_output_layers_get_the_rows_of_their_replicas():
    single, stacked = llama(tied=False), llama(tied=False)
    weight = torch.stack([single.lm_head.weight.detach(), single.lm_head.weight.detach().flip(0)])
    stacked.lm_head = Stack(weight)
    assert loss_path_of(stacked, TOKENS, 2) == LABELS
    lengths = (9, 5, 4, 14, 7, 6)  # two rows each
    losses = losses_of(stacked, batch(lengths, [3, 3]), "labels")
    for replica in range(2):
        with torch.no_grad():
            single.lm_head.weight.copy_(weight[replica])
        alone = losses_of(single, unpacked(batch(lengths)), "everywhere")
        own = slice(3 * replica, 3 * replica + 3)
        torch.testing.assert_close(losses[own], alone[own], rtol=1e-5, atol=1e-5)


# How a model is left


def test_finding_out_draws_nothing_and_leaves_the_model_as_it_was():
    model = llama(tied=False, attention_dropout=0.5)
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert loss_path_of(model, TOKENS, 1) == FAST
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_is_found_out_once_for_each_model(monkeypatch):
    calls, model = [], llama()
    model.register_forward_pre_hook(lambda module, inputs: calls.append(module))
    loss_path_of(model, TOKENS, 1)
    tried = len(calls)
    assert tried > 1
    loss_path_of(model, TOKENS, 1)
    assert len(calls) == tried
    loss_path_of(copy.deepcopy(model), TOKENS, 1)
    assert len(calls) > tried


@pytest.mark.parametrize("head", ["chunks", "labels"])
def test_the_output_layer_comes_back_when_the_model_fails(head):
    model = llama()
    model.model.norm.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        losses_of(model, batch(), head)
    assert "forward" not in vars(model.lm_head)
    model.model.norm._forward_hooks.clear()
    before = vars(model.lm_head)["forward"] = type(model.lm_head).forward.__get__(
        model.lm_head
    )  # as accelerate's hooks do
    losses_of(model, batch(), head)
    assert vars(model.lm_head)["forward"] is before


def test_no_logits_of_the_whole_batch_and_no_cache():
    model, seen = llama(), []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    model.register_forward_hook(lambda module, inputs, output: seen.append(output.past_key_values))
    together = batch()
    labels = together.targets != IGNORED
    losses_of(model, together, "chunks")
    losses_of(model, together, "labels")
    assert seen == [
        (1, labels.sum(), 32),
        None,
        (len(labels), labels.sum(1).max(), VOCABULARY),
        None,
    ]


def test_an_example_without_a_label_costs_nothing():
    together = batch()
    together.targets[together.example == 2] = IGNORED
    unlearnt = replace(together, targets=torch.full_like(together.targets, IGNORED))
    for head in HEADS:
        losses = losses_of(llama(), together, head)
        assert losses[2] == 0 and (losses[[0, 1, 3, 4, 5]] > 0).all()
        assert not losses_of(llama(), unlearnt, head).any()


def test_inside_a_process_group_the_gradients_are_the_same():
    """In a process of its own: a group's threads are not this one's to wait for."""
    code = "from tests.tasks.causal.test_loss_paths import compare_in_a_process_group as compare; compare()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "compared 2 passes\n"


def compare_in_a_process_group():
    from torch.distributed import HashStore, destroy_process_group, init_process_group

    model, together = llama(), batch()
    wanted = results(model, together, "everywhere")
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    assert loss_path_of(wrapped, TOKENS, 1) is loss_path_of(model, TOKENS, 1) == FAST
    assert output_layer(wrapped) is model.lm_head
    for _ in range(2):  # a second pass fails where the first one left a parameter without its gradient
        losses, gradients = results(wrapped, together, "chunks")
        torch.testing.assert_close(losses, wanted[0], rtol=1e-5, atol=1e-5)
        close({name.removeprefix("module."): slope for name, slope in gradients.items()}, wanted[1], 2e-5)
    destroy_process_group()
    print("compared 2 passes")


def test_transformers_does_not_ask_for_a_mask(caplog):
    """It warns of padding without a mask, which GPT-2 looks for; a mask would undo the packing."""
    model = gpt2()
    loss_path_of(model, TOKENS, 1)
    hf_logging.warning_once.cache_clear()
    losses_of(model, batch((9, 7, 4)), "chunks")
    logging.getLogger("transformers.modeling_utils").warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


def test_a_way_in_words():
    assert str(FAST) == "packed, labels only, in chunks"
    assert str(LossPath(False, "everywhere")) == "one example a row, all positions"
